/** A simple static server like `python -m http.server`: it sends no isolation headers, and supports ranges only on request. */

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

/** Serves folders below paths: `{ "/": "dist", "/model/": "/folders/int4" }`; the longest matching path is used. */
export class StaticServer {
  #server;
  /** Every requested path, with its range. */
  requests = [];
  /** The number of bytes after which a response is interrupted, by path. */
  breaks = new Map();
  /** Code that is inserted before a script, by path. */
  prefixes = new Map();
  /** The path of a response that starts and never ends. */
  waits = "";
  hasRanges = false;
  /** Whether pages of other origins may read the files. They cannot read additional headers. */
  hasCors = false;
  /** The status of empty responses, by the prefix of a path. */
  statuses = new Map();
  /** The content that is sent for missing files, as servers of single-page applications do. */
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
