/**
 * The generation options of one answer, and their defaults from the exported folder.
 *
 * Options have the meaning and the order of Hugging Face transformers and of the Python runtime.
 */

import { FolderError, SamplingError } from "./errors.js";
import { readObject, showValue } from "./text_files.js";

const GENERATION_CONFIG_NAME = "generation_config.json";

// What transformers samples with when generation_config.json says nothing
// (GenerationConfig._get_default_generation_params, transformers 5).
const TRANSFORMERS_TOP_K = 50;
const MAX_STOPS = 1000;
const COUNTS = "a whole number from 0 to 2^53 - 1";
const LARGEST = 1_000_000; // float32 scores stay finite with all values up to here
const SMALLEST_PENALTY = 0.01;

/**
 * All options are optional. Their defaults come from the folder's `generation_config.json`.
 * @typedef {object} AnswerOptions
 * @property {number} [temperature]  sampling temperature; 0 always chooses the most likely token (greedy decoding)
 * @property {number} [topK]  sample from the k most likely tokens; 0 turns top-k off
 * @property {number} [topP]  sample from the smallest set of tokens whose probabilities add up to topP; 1 turns top-p off
 * @property {number} [minP]  exclude tokens whose probability is below minP times that of the most likely token; 0 turns min-p off
 * @property {number} [repetitionPenalty]  values above 1 make tokens of the prompt and the answer less likely; 1 turns it off
 * @property {number} [presencePenalty]  subtracted once from the logit of every token that is already generated
 * @property {number} [frequencyPenalty]  subtracted from a token's logit for each time it was already generated
 * @property {Iterable<readonly [number, number]>} [logitBias]  pairs of a token id and the number that is added to its logit
 * @property {number | bigint} [seed]  seed of the random generator; by default every answer has another seed
 * @property {number | null} [maxNewTokens]  maximum number of generated tokens, reasoning included; `null` sets no limit besides the context
 * @property {number} [maxLength]  maximum number of tokens of prompt and answer together; maxNewTokens wins over it
 * @property {readonly string[]} [stop]  strings that end the answer; they are not part of it
 * @property {number} [maxThinkingTokens]  limits reasoning to this number of tokens; then the answer begins
 * @property {boolean} [ignoreEos]  never choose an end-of-sequence token
 * @property {AbortSignal} [signal]  cancels the answer between two runs of the graph, by throwing the signal's reason
 */

/**
 * `AnswerOptions` in which every option has a value; `null` means no seed, no limit or no signal.
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
 * @property {number | null} maxLength
 * @property {readonly string[]} stop
 * @property {number | null} maxThinkingTokens
 * @property {boolean} ignoreEos
 * @property {AbortSignal | null} signal
 */

/** @type {Readonly<Settings>} */
const OFF = Object.freeze({
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
  maxLength: null,
  stop: [],
  maxThinkingTokens: null,
  ignoreEos: false,
  signal: null,
});

/**
 * Merge the caller's options with the folder's defaults.
 *
 * Where the default is greedy, topK, topP or minP turn sampling on, at temperature 1.
 * @param {AnswerOptions} options
 * @param {Settings} defaults
 * @returns {Settings}
 * @throws {SamplingError} a value is outside its range, or the option is unknown in JavaScript.
 */
export function resolveSettings(options, defaults) {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const unknown = Object.keys(given).find((key) => !(key in OFF));
  if (unknown !== undefined) {
    throw new SamplingError(
      `the option ${JSON.stringify(unknown)} is unknown in JavaScript, where the options are ` +
        `${Object.keys(OFF).join(", ")}; leave it out, or use the Python runtime ` +
        "(DRY, structured output, log probabilities, speculative decoding).",
    );
  }
  const turnsOn = defaults.temperature === 0 && ("topK" in given || "topP" in given || "minP" in given);
  const limits = "maxNewTokens" in given || "maxLength" in given ? { maxNewTokens: null, maxLength: null } : {};
  return check({ ...defaults, ...limits, ...(turnsOn ? { temperature: 1 } : {}), ...given });
}

/**
 * Read the settings that the model's authors recommend.
 *
 * Without `do_sample: true` decoding is greedy, and only the repetition penalty is used. With
 * `do_sample: true` a missing value gets the default of transformers.
 * @param {import("./text_files.js").Folder} folder
 * @returns {Promise<Settings>}
 * @throws {FolderError} the file is missing, is not JSON, or contains an invalid value.
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
    const limits = { maxNewTokens: readLimit(config, "max_new_tokens"), maxLength: readLimit(config, "max_length") };
    return check({ ...OFF, ...limits, repetitionPenalty, ...(config.do_sample ? sampled : { temperature: 0 }) });
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
    `${GENERATION_CONFIG_NAME}: ${key} is ${showValue(value)} where a number is expected; ` +
      "correct it in the checkpoint and export again.",
  );
}

/**
 * @param {Record<string, unknown>} config
 * @param {string} key
 */
function readLimit(config, key) {
  const value = config[key] ?? null;
  if (value === null || (isCount(value) && value > 0)) return value;
  throw new FolderError(
    `${GENERATION_CONFIG_NAME}: ${key} is ${showValue(value)} where a whole number of 1 or more is ` +
      "expected; correct it in the checkpoint and export again.",
  );
}

/**
 * @param {Settings} settings  unchecked: a JavaScript caller may pass values of any type
 * @returns {Settings}
 */
function check(settings) {
  const { temperature, topK, topP, minP, repetitionPenalty, seed, stop } = settings;
  require(isBetween(temperature, 0), "temperature", temperature, `a number from 0 (greedy) to ${LARGEST}`);
  require(isCount(topK), "topK", topK, COUNTS.replace("0", "0 (keep all)"));
  require(isNumber(topP) && topP > 0 && topP <= 1, "topP", topP, "above 0 and at most 1");
  require(isNumber(minP) && minP >= 0 && minP <= 1, "minP", minP, "from 0 to 1");
  const isPenalty = isBetween(repetitionPenalty, SMALLEST_PENALTY);
  require(isPenalty, "repetitionPenalty", repetitionPenalty, `a number from ${SMALLEST_PENALTY} to ${LARGEST}`);
  for (const name of /** @type {const} */ (["presencePenalty", "frequencyPenalty"])) {
    require(isBetween(settings[name], -LARGEST), name, settings[name], `a number from -${LARGEST} to ${LARGEST}`);
  }
  const isSeed = seed === null || isCount(seed) || (typeof seed === "bigint" && seed >= 0n);
  require(isSeed, "seed", seed, COUNTS);
  for (const name of /** @type {const} */ (["maxNewTokens", "maxLength", "maxThinkingTokens"])) {
    const least = name === "maxThinkingTokens" ? 0 : 1;
    const value = settings[name];
    require(value === null || (isCount(value) && value >= least), name, value, COUNTS.replace("0", String(least)));
  }
  const isStop = Array.isArray(stop) && stop.every((one) => typeof one === "string" && one);
  require(isStop, "stop", stop, "a list of non-empty strings");
  // All of them are searched after every token.
  require(stop.length <= MAX_STOPS, "stop", `${stop.length} strings`, `at most ${MAX_STOPS} strings`);
  const { ignoreEos, signal } = settings;
  require(typeof ignoreEos === "boolean", "ignoreEos", ignoreEos, "true or false");
  require(signal === null || signal instanceof AbortSignal, "signal", signal, "an AbortSignal");
  return { ...settings, logitBias: checkBias(settings.logitBias) };
}

/** @param {unknown} bias */
function checkBias(bias) {
  const pairs = isIterable(bias) ? [...bias] : [null];
  for (const pair of pairs) {
    const [token, value] = Array.isArray(pair) ? pair : [];
    const isPair = isCount(token) && (isBetween(value, -LARGEST) || value === -Infinity);
    const expected = `pairs of a token id and a number from -${LARGEST} to ${LARGEST}, or -Infinity`;
    require(isPair, "logitBias", pair, expected);
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
 * @param {number} least
 */
function isBetween(value, least) {
  return isNumber(value) && value >= least && value <= LARGEST;
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
