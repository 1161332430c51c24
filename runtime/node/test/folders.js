/** The folder under test, and damaged copies of it. */

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Made by `glm-export artifacts/glm4-sample --method rtn --accuracy-level 0 --conformance -o DIR`. */
export const FOLDER = process.env.GLM_FOLDER ?? "";

if (!FOLDER) throw new Error("GLM_FOLDER is not set; give a folder that `glm-export --conformance` wrote.");

export const vectors = await readJson(join(FOLDER, "conformance.json"));

/** More results of the Python runtime, written by `tests/hosts/test_node.py`. */
export const cases = process.env.GLM_CASES ? await readJson(process.env.GLM_CASES) : null;

/** The reason to skip a test that needs `cases`. */
export const withoutCases = cases ? false : "GLM_CASES is not set; run pytest tests/hosts/test_node.py";

/** @param {string} path */
export async function readJson(path) {
  return JSON.parse(await readFile(path, "utf8"));
}

/** Copy the folder. The copy is deleted after the test. */
export async function copyFolder(test) {
  const root = await mkdtemp(join(tmpdir(), "glm-"));
  test.after(() => rm(root, { recursive: true }));
  const folder = join(root, "copy");
  await cp(FOLDER, folder, { recursive: true });
  return folder;
}

/**
 * Change a JSON file of a copy, and update its size in the manifest.
 * @param {string} folder
 * @param {string} name
 * @param {(content: any) => void} change
 */
export async function changeJson(folder, name, change) {
  const content = await readJson(join(folder, name));
  change(content);
  await replaceFile(folder, name, JSON.stringify(content));
}

/** Replace a file of a copy, and update its size in the manifest. */
export async function replaceFile(folder, name, content) {
  await writeFile(join(folder, name), content);
  if (name === "glm_manifest.json") return;
  await changeJson(folder, "glm_manifest.json", (manifest) => {
    manifest.files[name].size_bytes = Buffer.byteLength(content);
  });
}

/** Collect the pieces of an answer. */
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

const { cache_dtype: cacheDtype } = (await readJson(join(FOLDER, "glm_manifest.json"))).model;
const cacheSlack = cacheDtype === "float32" ? 0 : 0.05; // float16 and int8 round away small differences, or enlarge them

/**
 * How far logits may be from a vector's. Kernels for other processors round activations to int8 in another
 * way; `logit_rounding` is measured for that (`glm_export/folder/conformance.py`), and is 0 for float activations.
 */
export const boundOf = (vector) => 3 * vector.logit_rounding + cacheSlack + 1e-3;

/** Whether greedy tokens must be equal: the margin between the two largest logits is wider than the rounding. */
export const isSure = (vector) => vector.smallest_margin > 2 * vector.logit_rounding + cacheSlack;

/** Whether sampled tokens must be equal. */
export const isExact = (vector) => vector.logit_rounding === 0 && cacheSlack === 0;
