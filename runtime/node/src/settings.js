/**
 * What a caller may ask of one answer, checked once, and the defaults of a folder.
 *
 * Meaning and order are those of Hugging Face transformers, and of the Python runtime.
 */

import { FolderError, SamplingError } from "./errors.js";
import { readObject } from "./text_files.js";

const GENERATION_CONFIG_NAME = "generation_config.json";

// What transformers samples with when generation_config.json says nothing
// (GenerationConfig._get_default_generation_params, transformers 5).
const TRANSFORMERS_TOP_K = 50;

/**
 * All are optional; what is left out is as the folder's `generation_config.json` says.
 * @typedef {object} AnswerOptions
 * @property {number} [temperature]  divides the logits; 0 always takes the likeliest token (greedy)
 * @property {number} [topK]  keep the k likeliest tokens; 0 keeps all
 * @property {number} [topP]  keep the likeliest tokens that make up this share; 1 keeps all
 * @property {number} [minP]  drop tokens less likely than this share of the likeliest; 0 drops none
 * @property {number} [repetitionPenalty]  above 1, tokens in prompt or answer become less likely
 * @property {number} [presencePenalty]  taken from the logit of each token already in the answer
 * @property {number} [frequencyPenalty]  taken as often as the token is in the answer already
 * @property {Iterable<readonly [number, number]>} [logitBias]  (token id, what is added to its logit)
 * @property {number | bigint} [seed]  one seed gives one output; without, each differs
 * @property {number} [maxNewTokens]  thinking included; without, the answer ends where the model says
 * @property {readonly string[]} [stop]  end the answer and are not part of it
 * @property {number} [maxThinkingTokens]  longer thinking is closed, and the answer begins
 * @property {boolean} [ignoreEos]  never choose an end-of-sequence token
 * @property {AbortSignal} [signal]  ends the answer between two runs of the graph, by throwing its reason
 */

/**
 * The same with nothing left out.
 * @typedef {object} Settings
 * @property {number} temperature
 * @property {number} topK
 * @property {number} topP
 * @property {number} minP
 * @property {number} repetitionPenalty
 * @property {number} presencePenalty
 * @property {number} frequencyPenalty
 * @property {(readonly [number, number])[]} logitBias
 * @property {number | bigint | null} seed
 * @property {number | null} maxNewTokens
 * @property {readonly string[]} stop
 * @property {number | null} maxThinkingTokens
 * @property {boolean} ignoreEos
 * @property {AbortSignal | null} signal
 */

/** @type {Readonly<Settings>} */
const PLAIN = Object.freeze({
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
  seed: null,
  maxNewTokens: null,
  stop: [],
  maxThinkingTokens: null,
  ignoreEos: false,
  signal: null,
});

/**
 * Merge what a caller wants with a folder's defaults.
 *
 * A sampling option on top of a greedy default turns sampling on, at temperature 1.
 * @param {AnswerOptions} options
 * @param {Settings} defaults
 * @returns {Settings}
 * @throws {SamplingError} a value is outside its range, or an option is not offered here.
 */
export function resolveSettings(options, defaults) {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const unknown = Object.keys(given).find((key) => !(key in PLAIN));
  if (unknown !== undefined) {
    throw new SamplingError(
      `the option ${JSON.stringify(unknown)} is given where only ${Object.keys(PLAIN).join(", ")} are offered ` +
        "in JavaScript; leave it out, or use the Python runtime (DRY, grammars, log probabilities, drafts).",
    );
  }
  const turnsOn = defaults.temperature === 0 && ("topK" in given || "topP" in given || "minP" in given);
  return check({ ...defaults, ...(turnsOn ? { temperature: 1 } : {}), ...given });
}

/**
 * Read what the model's authors recommend.
 *
 * `do_sample: false`, or none, is greedy; then only the repetition penalty counts. With
 * `do_sample: true` a missing value gets the default of transformers.
 * @param {import("./text_files.js").Folder} folder
 * @returns {Promise<Settings>}
 * @throws {FolderError} the file is missing, no JSON, or holds a value that cannot be used.
 */
export async function readDefaults(folder) {
  const config = await readObject(folder, GENERATION_CONFIG_NAME);
  const repetitionPenalty = readNumber(config, "repetition_penalty", 1);
  const sampled = {
    temperature: readNumber(config, "temperature", 1),
    topK: readNumber(config, "top_k", TRANSFORMERS_TOP_K),
    topP: readNumber(config, "top_p", 1),
    minP: readNumber(config, "min_p", 0),
  };
  try {
    return check({ ...PLAIN, repetitionPenalty, ...(config.do_sample ? sampled : { temperature: 0 }) });
  } catch (error) {
    if (!(error instanceof SamplingError)) throw error;
    throw new FolderError(`${GENERATION_CONFIG_NAME}: ${error.message}`, error);
  }
}

/**
 * @param {Record<string, unknown>} config
 * @param {string} key
 * @param {number} otherwise
 */
function readNumber(config, key, otherwise) {
  const value = config[key] ?? otherwise;
  if (typeof value === "number") return value;
  throw new FolderError(
    `${GENERATION_CONFIG_NAME}: ${key} is ${JSON.stringify(value)} where a number is expected; ` +
      "correct it in the checkpoint and export again.",
  );
}

/**
 * @param {Settings} settings  of any types, as JavaScript's callers give them
 * @returns {Settings}
 */
function check(settings) {
  const { temperature, topK, topP, minP, repetitionPenalty, seed, stop } = settings;
  require(isNumber(temperature) && temperature >= 0, "temperature", temperature, "0 (greedy) or more");
  require(isCount(topK), "topK", topK, "0 (keep all) or more");
  require(isNumber(topP) && topP > 0 && topP <= 1, "topP", topP, "above 0 and at most 1");
  require(isNumber(minP) && minP >= 0 && minP <= 1, "minP", minP, "from 0 to 1");
  const isPenalty = isNumber(repetitionPenalty) && repetitionPenalty > 0;
  require(isPenalty, "repetitionPenalty", repetitionPenalty, "a number above 0");
  for (const name of /** @type {const} */ (["presencePenalty", "frequencyPenalty"])) {
    require(isNumber(settings[name]), name, settings[name], "a number (0 changes nothing)");
  }
  const isSeed = seed === null || isCount(seed) || (typeof seed === "bigint" && seed >= 0n);
  require(isSeed, "seed", seed, "a whole number, 0 or more");
  for (const name of /** @type {const} */ (["maxNewTokens", "maxThinkingTokens"])) {
    const least = name === "maxNewTokens" ? 1 : 0;
    const value = settings[name];
    require(value === null || (isCount(value) && value >= least), name, value, `${least} or more`);
  }
  const isStop = Array.isArray(stop) && stop.every((one) => typeof one === "string" && one);
  require(isStop, "stop", stop, "a list of texts of at least one character");
  const { signal } = settings;
  require(signal === null || signal instanceof AbortSignal, "signal", signal, "an AbortSignal");
  return { ...settings, logitBias: checkBias(settings.logitBias) };
}

/** @param {unknown} bias */
function checkBias(bias) {
  const pairs = isIterable(bias) ? [...bias] : [null];
  for (const pair of pairs) {
    const [token, value] = Array.isArray(pair) ? pair : [];
    const isPair = isCount(token) && (isNumber(value) || value === -Infinity);
    require(isPair, "logitBias", pair, "pairs of a token id and a number, or -Infinity");
  }
  return pairs;
}

/**
 * @param {unknown} value
 * @returns {value is Iterable<any>}
 */
function isIterable(value) {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}

/**
 * @param {unknown} value
 * @returns {value is number}
 */
function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/**
 * @param {unknown} value
 * @returns {value is number}
 */
function isCount(value) {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/**
 * @param {boolean} isMet
 * @param {string} name
 * @param {unknown} found
 * @param {string} expected
 */
function require(isMet, name, found, expected) {
  if (isMet) return;
  const shown = Array.isArray(found) ? JSON.stringify(found) : typeof found === "string" ? `"${found}"` : String(found);
  throw new SamplingError(`${name} is ${shown} where ${expected} is expected; choose a value in that range.`);
}
