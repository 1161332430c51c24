/** A plain static server, as `python -m http.server` is one: no headers of isolation, no ranges unless asked for. */

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/** Serves folders below paths: `{ "/": "dist", "/model/": "/folders/int4" }`; the longest path counts. */
export class StaticServer {
  #server;
  /** Every path that was asked for, with its range. */
  requests = [];
  /** Bytes after which an answer breaks off, by path. */
  breaks = new Map();
  /** Code put before a script, by path. */
  prefixes = new Map();
  /** The path whose answer begins and never ends. */
  waits = "";
  hasRanges = false;
  /** Whether pages of other origins may read, and no more headers than they may anyway. */
  hasCors = false;
  /** Answers with a status and nothing else, by the beginning of a path. */
  statuses = new Map();
  /** What stands for files that are missing, as servers of pages with routes do it. */
  instead = "";

  /** @param {Record<string, string>} places */
  constructor(places) {
    this.places = places;
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  /** @param {number} [port] */
  async start(port = 0) {
    await new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.port = this.#server.address().port;
    this.address = `http://localhost:${this.port}/`;
    return this;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request, response) {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const { range } = request.headers;
    this.requests.push({ path, range });
    const base = Object.keys(this.places).filter((one) => path.startsWith(one)).sort((a, b) => b.length - a.length)[0];
    const name = normalize(path.slice(base?.length ?? 0) || "index.html");
    const content = base && !name.startsWith("..") ? await readFile(join(this.places[base], name)).catch(() => null) : null;
    const bytes = content && Buffer.concat([Buffer.from(this.prefixes.get(path) ?? ""), content]);
    if (this.hasCors) response.setHeader("Access-Control-Allow-Origin", "*");
    const [, status] = [...this.statuses].find(([beginning]) => path.startsWith(beginning)) ?? [];
    if (status) return void response.writeHead(status).end();
    if (!bytes && this.instead) return void response.writeHead(200, { "Content-Type": "text/html" }).end(this.instead);
    if (!bytes) return void response.writeHead(404).end();
    const start = this.hasRanges && range ? Number(/bytes=(\d+)-/.exec(range)[1]) : 0;
    const headers = {
      "Content-Type": TYPES[extname(name)] ?? "application/octet-stream",
      "Content-Length": bytes.length - start,
      ...(start ? { "Content-Range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {}),
    };
    response.writeHead(start ? 206 : 200, headers);
    if (path === this.waits) return void response.write(bytes.subarray(start, bytes.length >> 1));
    const end = this.breaks.get(path);
    if (end === undefined) return void response.end(bytes.subarray(start));
    this.breaks.delete(path);
    response.write(bytes.subarray(start, end), () => setTimeout(() => response.destroy(), 50));
  }
}
