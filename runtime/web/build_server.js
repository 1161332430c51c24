/**
 * Builds the page of `glm-run serve` into `../glm_server/page_files/`: `npm run build:server`.
 *
 * The server serves `index.html` at `/`, `docs.html` at `/docs`, and the other files below `/page/`.
 */

import { copyFile, mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";

import { build } from "esbuild";

import { ROOT, options, writeStatic } from "./build_options.js";

const OUTPUT = join(ROOT, "..", "glm_server", "page_files");
const UNFINISHED = `${OUTPUT}.${process.pid}`;
const BUNDLED = ["dompurify", "eventsource-parser", "idb", "marked"];
const SWAGGER = join(ROOT, "node_modules", "swagger-ui-dist");

await mkdir(join(UNFINISHED, "licenses"), { recursive: true });
const result = await build({
  ...options,
  entryPoints: Object.entries({ page: "server_main.js", docs: "docs_main.js", service_worker: "retired_worker.js" })
    .map(([out, name]) => ({ in: join(ROOT, "page", name), out })),
  outdir: UNFINISHED,
  legalComments: "none", // the licenses are beside the page
  metafile: true,
});
requireKnown(Object.keys(result.metafile.inputs));
await writeStatic(UNFINISHED, "server");
const index = join(UNFINISHED, "index.html");
const html = placeFiles(await readFile(index, "utf8"));
await writeFile(index, html);
await writeDocs(/<dialog id="key".*?<\/dialog>/s.exec(html)?.[0] ?? "");
for (const name of BUNDLED) {
  await copyFile(join(ROOT, "node_modules", name, "LICENSE"), join(UNFINISHED, "licenses", `${name}.txt`));
}
for (const name of ["LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"]) {
  await copyFile(join(SWAGGER, name), join(UNFINISHED, "licenses", `swagger-ui-dist.${name.replace(/\.txt$/, "")}.txt`));
}
await replaceFiles(await listFiles(UNFINISHED));
await rm(UNFINISHED, { recursive: true });

/** @param {string} html */
function placeFiles(html) {
  return html.replaceAll(/(href|src)="([\w-]+\.(?:css|js|svg))"/g, '$1="page/$2"');
}

/**
 * Write the page of the endpoints. The pictures in Swagger UI's style become files, since the page's policy allows no others.
 * @param {string} key  the dialog that asks for the API key
 */
async function writeDocs(key) {
  const docs = await readFile(join(ROOT, "page", "docs.html"), "utf8");
  await writeFile(join(UNFINISHED, "docs.html"), placeFiles(docs.replace("<!--key-->", () => key)));
  await copyFile(join(ROOT, "page", "docs.css"), join(UNFINISHED, "docs.css"));
  const script = await readFile(join(SWAGGER, "swagger-ui-bundle.js"), "utf8");
  await writeFile(join(UNFINISHED, "swagger-ui-bundle.js"), script.replace(/\/\/# sourceMappingURL=.*\n?$/, ""));
  /** @type {string[]} */
  const pictures = [];
  const style = (await readFile(join(SWAGGER, "swagger-ui.css"), "utf8"))
    .replace(/\/\*# sourceMappingURL=.*\*\/\n?$/, "")
    .replaceAll(/url\("data:image\/svg\+xml;charset=utf-8,(.*?)"\)/g, (_, text) => {
      const picture = decodeURIComponent(text).replaceAll('\\"', '"');
      if (!pictures.includes(picture)) pictures.push(picture);
      return `url("swagger-${pictures.indexOf(picture)}.svg")`;
    });
  await writeFile(join(UNFINISHED, "swagger-ui.css"), style);
  for (const [number, picture] of pictures.entries()) await writeFile(join(UNFINISHED, `swagger-${number}.svg`), picture);
}

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
