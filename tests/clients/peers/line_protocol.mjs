// The line protocol (README.md) of the Node peers.

import { createInterface } from "node:readline";

export function emit(event) {
  process.stdout.write(JSON.stringify(event) + "\n");
}

export async function* commands() {
  for await (const line of createInterface({ input: process.stdin, terminal: false })) yield JSON.parse(line);
}
