// Writes every dashboard as JSON into a directory: node main.js DIRECTORY

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { fleet } from "./fleet.js";
import { sessions } from "./sessions.js";

const directory = process.argv[2];
if (!directory) throw new Error("usage: node main.js DIRECTORY");
mkdirSync(directory, { recursive: true });
for (const dashboard of [sessions, fleet]) {
  writeFileSync(join(directory, `${dashboard.uid}.json`), `${JSON.stringify(dashboard, null, 2)}\n`);
}
