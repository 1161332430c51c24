/** Reads the names of tools and calls in OpenAI's format, and of the built-in tools of GLM-4 All Tools. */

import { BUILT_IN } from "./dialects/all_tools.js";
import { PromptError } from "./errors.js";
import { strip } from "./white_space.js";

/**
 * The name of a built-in tool, such as `{ type: "python" }`; `undefined` for a function.
 * @param {any} tool
 * @returns {string | undefined}
 */
export function findBuiltIn(tool) {
  if (tool?.function !== undefined || tool?.name !== undefined) return undefined;
  return BUILT_IN.find((name) => name === tool?.type);
}

/**
 * The name of a tool or of a call.
 * @param {any} tool
 * @returns {string}
 * @throws {PromptError} it has no name of one line.
 */
export function readName(tool) {
  const builtIn = findBuiltIn(tool);
  if (builtIn !== undefined) return builtIn;
  const name = (tool?.function ?? tool)?.name;
  if (typeof name !== "string" || !strip(name) || name.includes("\n")) {
    throw new PromptError(
      `a tool has the name ${JSON.stringify(name)} where one line of text is expected; ` +
        'write { type: "function", function: { name: ..., parameters: ... } }.',
    );
  }
  return name;
}

/**
 * Names of all tools, in their order.
 * @param {readonly unknown[]} tools
 * @returns {string[]}
 * @throws {PromptError} a tool has no name, or two tools have the same name.
 */
export function readToolNames(tools) {
  const names = tools.map(readName);
  const doubled = names.find((name, index) => names.indexOf(name) !== index);
  if (doubled !== undefined) {
    throw new PromptError(`two tools are named ${JSON.stringify(doubled)} where names must differ; rename one.`);
  }
  return names;
}
