/**
 * Builds the page of `glm-run serve` into `../glm_server/page_files/`: `npm run build:server`.
 *
 * The server serves `index.html` at `/`, and the other files below `/page/`.
 */

import { copyFile, mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";

import { build } from "esbuild";

import { ROOT, options, writeStatic } from "./build_options.js";

const OUTPUT = join(ROOT, "..", "glm_server", "page_files");
const UNFINISHED = `${OUTPUT}.${process.pid}`;
const BUNDLED = ["dompurify", "eventsource-parser", "idb", "marked"];

await mkdir(join(UNFINISHED, "licenses"), { recursive: true });
const result = await build({
  ...options,
  entryPoints: [{ in: join(ROOT, "page", "server_main.js"), out: "page" }],
  outdir: UNFINISHED,
  legalComments: "none", // the licenses are beside the page
  metafile: true,
});
requireKnown(Object.keys(result.metafile.inputs));
await writeStatic(UNFINISHED, "server");
const index = join(UNFINISHED, "index.html");
await writeFile(index, (await readFile(index, "utf8")).replaceAll(/(href|src)="(\w+\.(?:css|js|svg))"/g, '$1="page/$2"'));
for (const name of BUNDLED) {
  await copyFile(join(ROOT, "node_modules", name, "LICENSE"), join(UNFINISHED, "licenses", `${name}.txt`));
}
await replaceFiles(await listFiles(UNFINISHED));
await rm(UNFINISHED, { recursive: true });

/**
 * Put each file in its place at once, since a server may be serving the old one.
 * @param {string[]} names
 */
async function replaceFiles(names) {
  await mkdir(join(OUTPUT, "licenses"), { recursive: true });
  for (const name of names) await rename(join(UNFINISHED, name), join(OUTPUT, name));
  for (const name of await listFiles(OUTPUT)) if (!names.includes(name)) await rm(join(OUTPUT, name));
}

/** @param {string} folder */
async function listFiles(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((one) => one.isFile()).map((one) => relative(folder, join(one.parentPath, one.name)));
}

/**
 * Stop if the bundle has a package whose license is not copied.
 * @param {string[]} inputs
 */
function requireKnown(inputs) {
  const packages = inputs.flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []);
  const unknown = packages.find((name) => !BUNDLED.includes(name));
  if (unknown) throw new Error(`the server's page bundles ${unknown}; add it to BUNDLED, so that its license is copied.`);
}
