// A peer for Node's `ws`, with permessage-deflate for messages of every size.

import { WebSocket, WebSocketServer } from "ws";
import { commands, emit } from "./line_protocol.mjs";

const perMessageDeflate = { threshold: 0 };
let socket;

function converse(newSocket) {
  socket = newSocket;
  socket.on("message", (data, isBinary) =>
    emit(isBinary ? { event: "message", binary: data.toString("base64") } : { event: "message", text: data.toString() }),
  );
  socket.addEventListener("close", ({ code, reason, wasClean }) => emit({ event: "close", code, reason, clean: wasClean }));
}

function connect(url) {
  const opening = new WebSocket(url, { perMessageDeflate });
  let extensions;
  opening.on("upgrade", ({ headers }) => (extensions = headers["sec-websocket-extensions"] ?? null));
  opening.on("open", () => emit({ event: "open", extensions }));
  opening.on("error", (error) => emit({ event: "refused", error: String(error) }));
  converse(opening);
}

function listen() {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate, maxPayload: 16 << 20 });
  let extensions;
  server.on("headers", (lines) => {
    const line = lines.find((header) => header.toLowerCase().startsWith("sec-websocket-extensions:"));
    extensions = line?.slice(line.indexOf(":") + 1).trim() ?? null;
  });
  server.on("connection", (accepted, request) => {
    emit({ event: "open", offer: request.headers["sec-websocket-extensions"] ?? null, extensions });
    converse(accepted);
  });
  server.on("listening", () => emit({ event: "ready", port: server.address().port }));
}

function send({ text, binary, fragments = 1 }) {
  const data = text ?? Buffer.from(binary, "base64");
  const size = Math.ceil(data.length / fragments);
  for (let piece = 0; piece < fragments; piece++) {
    const part = data.slice(piece * size, (piece + 1) * size);
    socket.send(part, { binary: text === undefined, fin: piece === fragments - 1 });
  }
}

function close({ code, reason }) {
  try {
    if (code === null) socket.close();
    else socket.close(code, reason);
  } catch (error) {
    emit({ event: "refused", error: String(error) });
  }
}

if (process.argv[2] === "server") listen();
else emit({ event: "ready" });
for await (const command of commands()) ({ connect: () => connect(command.url), send: () => send(command), close: () => close(command) })[command.do]();
process.exit();
