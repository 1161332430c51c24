/** Chooses the dialect in which the answers to a chat template's prompts call tools. */

import { AllToolsCalls } from "./all_tools.js";
import { BareJsonCalls } from "./bare_json.js";
import { NameLineCalls } from "./name_line.js";
import { PythonCalls } from "./python_call.js";
import { TaggedCalls } from "./tagged.js";

/**
 * How the model of a template writes calls; `null` if it may call nothing.
 * @param {import("../template_features.js").TemplateFeatures} features
 * @param {Map<string, unknown>} parameters  JSON schema of the parameters of each declared function
 * @param {readonly string[]} builtIn  the built-in tools of the conversation
 * @returns {import("./dialect.js").CallDialect | null}
 */
export function chooseDialect(features, parameters, builtIn) {
  const names = [...parameters.keys()];
  if (features.ownTools.length) return new BareJsonCalls([...new Set([...features.ownTools, ...names])]);
  if (!names.length && !builtIn.length) return null;
  if (features.builtInTools.length) return new AllToolsCalls(names, builtIn);
  if (features.taggedCalls) return new TaggedCalls(parameters);
  return features.pythonCalls ? new PythonCalls(names) : new NameLineCalls(names);
}
