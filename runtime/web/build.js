/** Builds the page with a model in the browser into `dist/`: `npm run build`. */

import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { build } from "esbuild";

import { ROOT, options, writeStatic } from "./build_options.js";

const OUTPUT = join(ROOT, "dist");
const ONNXRUNTIME = join(ROOT, "node_modules", "onnxruntime-web", "dist");
// The build without WebGPU and the build with it. The browser fetches one of them.
const VENDORED = [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];

await rm(OUTPUT, { recursive: true, force: true });
await mkdir(join(OUTPUT, "onnxruntime"), { recursive: true });
const entries = { glm: "src/index.js", worker: "src/worker.js", page: "page/main.js" };
await build({
  ...options,
  entryPoints: Object.entries(entries).map(([out, path]) => ({ in: join(ROOT, path), out })),
  outdir: OUTPUT,
});
await writeStatic(OUTPUT, "browser");
for (const name of VENDORED) await copyFile(join(ONNXRUNTIME, name), join(OUTPUT, "onnxruntime", name));

const shell = (await readdir(OUTPUT)).filter((name) => /\.(html|css|js|svg)$/.test(name)).sort();
/** @type {Record<string, string>} */
const onDemand = {};
const digest = createHash("sha256");
for (const name of [...shell, ...VENDORED.map((one) => `onnxruntime/${one}`)]) {
  const content = await readFile(join(OUTPUT, name));
  digest.update(name).update(content);
  if (!shell.includes(name)) onDemand[name] = `sha256-${createHash("sha256").update(content).digest("base64")}`;
}
const page = await readFile(join(OUTPUT, "index.html"), "utf8");
const policy = /http-equiv="Content-Security-Policy"\s+content="([^"]+)"/.exec(page)?.[1];
if (!policy) throw new Error("page/index.html has no Content-Security-Policy, which the service worker needs; add one.");
await build({
  ...options,
  entryPoints: [join(ROOT, "src", "service_worker.js")],
  outfile: join(OUTPUT, "service_worker.js"),
  format: "iife",
  define: {
    SHELL: JSON.stringify(shell),
    ON_DEMAND: JSON.stringify(onDemand),
    POLICY: JSON.stringify(policy),
    VERSION: JSON.stringify(digest.digest("hex").slice(0, 16)),
  },
});
