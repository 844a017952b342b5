// A peer for the WebSocket API of a page in headless Chromium. It is a client only.

import { spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { commands, emit } from "./line_protocol.mjs";

const ARGUMENTS = [
  "--headless=new",
  "--remote-debugging-port=0",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--no-first-run",
  // Only loopback is reachable.
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-default-apps",
  "--disable-extensions",
  "--disable-sync",
  "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];

// Playwright would start the browser in another process group. Here one signal to the group of this peer ends the
// browser, its network process and its tabs.
async function startBrowser(profile) {
  const sandbox = process.getuid() === 0 ? ["--no-sandbox"] : [];
  const browser = spawn(process.env.CHROMIUM ?? "chromium", [...ARGUMENTS, ...sandbox, `--user-data-dir=${profile}`, "about:blank"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const printed = [];
  for await (const line of createInterface({ input: browser.stderr })) {
    const endpoint = line.match(/DevTools listening on (ws:\S+)/)?.[1];
    if (endpoint) {
      // The rest of the output is dropped, because it must not fill the pipe.
      browser.stderr.resume();
      return { browser, endpoint };
    }
    printed.push(line);
  }
  throw new Error(`Chromium did not start:\n${printed.join("\n")}`);
}

// Runs inside the page.
function installWebSocket() {
  const base64 = (buffer) => {
    let binary = "";
    const bytes = new Uint8Array(buffer);
    for (let start = 0; start < bytes.length; start += 32768) binary += String.fromCharCode(...bytes.subarray(start, start + 32768));
    return btoa(binary);
  };
  window.obey = {
    connect({ url }) {
      window.socket = new WebSocket(url);
      window.socket.binaryType = "arraybuffer";
      window.socket.onopen = () => window.emit({ event: "open", extensions: window.socket.extensions || null });
      window.socket.onmessage = ({ data }) =>
        window.emit(typeof data === "string" ? { event: "message", text: data } : { event: "message", binary: base64(data) });
      window.socket.onclose = ({ code, reason, wasClean }) => window.emit({ event: "close", code, reason, clean: wasClean });
    },
    send({ text, binary, fragments = 1 }) {
      if (fragments > 1) throw new Error("a browser's send() has no fragments");
      window.socket.send(text ?? Uint8Array.from(atob(binary), (character) => character.charCodeAt(0)));
    },
    close({ code, reason }) {
      if (code === null) window.socket.close();
      else window.socket.close(code, reason);
    },
  };
}

const profile = mkdtempSync(join(tmpdir(), "closewatch-chromium-"));
const { browser, endpoint } = await startBrowser(profile);
// This happens after a failure of this peer, too.
process.on("exit", () => browser.kill("SIGKILL"));
const debugging = await chromium.connectOverCDP(endpoint);
const page = debugging.contexts()[0].pages()[0];
await page.exposeFunction("emit", emit);
await page.evaluate(installWebSocket);
emit({ event: "ready" });

for await (const command of commands()) {
  const error = await page.evaluate((wanted) => {
    try {
      window.obey[wanted.do](wanted);
    } catch (thrown) {
      return String(thrown);
    }
  }, command);
  if (error) emit({ event: "refused", error });
}
process.exit();
