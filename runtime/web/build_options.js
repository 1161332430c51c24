/** What the builds of both pages share: the options of esbuild, and the files that are not scripts. */

import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

export const ROOT = import.meta.dirname;
const COPIED = ["style.css", "conversation.css", "chats.css", "icon.svg"];

/** @type {import("esbuild").BuildOptions} */
export const options = {
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  keepNames: true, // errors have the name of their class
  legalComments: "linked",
  alias: { "glm-runtime/core": join(ROOT, "..", "node", "src", "core.js") },
  nodePaths: [join(ROOT, "node_modules")], // where that file's imports are found
  tsconfigRaw: {}, // the paths of tsconfig.json are for types, and lead to other files of packages
  logLevel: "warning",
};

/**
 * Write the page's HTML, and copy its styles and its icon.
 * @param {string} output
 * @param {"browser" | "server"} model  where the model runs
 */
export async function writeStatic(output, model) {
  const html = await readFile(join(ROOT, "page", "index.html"), "utf8");
  await writeFile(join(output, "index.html"), keepParts(html, model));
  for (const name of COPIED) await copyFile(join(ROOT, "page", name), join(output, name));
}

/**
 * Leave out what belongs to the other page: the text between `<!--NAME-->` and `<!--/NAME-->`.
 * @param {string} html
 * @param {"browser" | "server"} model
 */
function keepParts(html, model) {
  const other = model === "browser" ? "server" : "browser";
  const kept = html
    .replaceAll(new RegExp(`^ *<!--${other}-->\\n.*?<!--/${other}-->\\n`, "gms"), "")
    .replaceAll(new RegExp(`^ *<!--/?${model}-->\\n`, "gm"), "");
  if (/<!--\/?(browser|server)-->/.test(kept)) throw new Error("page/index.html has a part that does not end; write its closing comment.");
  return kept;
}
