/** The folder under test, and copies of it with something wrong. */

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Made by `glm-export artifacts/glm4-sample --method rtn --conformance -o DIR`. */
export const FOLDER = process.env.GLM_FOLDER ?? "";

if (!FOLDER) throw new Error("GLM_FOLDER is not set; give a folder that `glm-export --conformance` wrote.");

export const vectors = await readJson(join(FOLDER, "conformance.json"));

/** What the Python runtime does beyond the vectors; `tests/hosts/test_node.py` writes it. */
export const cases = process.env.GLM_CASES ? await readJson(process.env.GLM_CASES) : null;

/** Reason to skip a test that needs `cases`. */
export const withoutCases = cases ? false : "GLM_CASES is not set; run pytest tests/hosts/test_node.py";

/** @param {string} path */
export async function readJson(path) {
  return JSON.parse(await readFile(path, "utf8"));
}

/** A copy of the folder that goes away with the test. */
export async function copyFolder(test) {
  const root = await mkdtemp(join(tmpdir(), "glm-"));
  test.after(() => rm(root, { recursive: true }));
  const folder = join(root, "copy");
  await cp(FOLDER, folder, { recursive: true });
  return folder;
}

/**
 * Change a JSON file of a copy; the manifest's size of it stays right.
 * @param {string} folder
 * @param {string} name
 * @param {(content: any) => void} change
 */
export async function changeJson(folder, name, change) {
  const content = await readJson(join(folder, name));
  change(content);
  await replaceFile(folder, name, JSON.stringify(content));
}

/** Replace a file of a copy; the manifest's size of it stays right. */
export async function replaceFile(folder, name, content) {
  await writeFile(join(folder, name), content);
  if (name === "glm_manifest.json") return;
  await changeJson(folder, "glm_manifest.json", (manifest) => {
    manifest.files[name].size_bytes = Buffer.byteLength(content);
  });
}

/** Everything an answer came to. */
export async function collect(pieces) {
  const answer = { token_ids: [], text: "", reasoning: "", finish_reason: null, tool_calls: [] };
  for await (const piece of pieces) {
    answer.token_ids.push(piece.tokenId);
    answer.text += piece.text;
    answer.reasoning += piece.reasoning;
    answer.finish_reason = piece.finishReason;
    answer.tool_calls = piece.toolCalls;
  }
  return answer;
}
