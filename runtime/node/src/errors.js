/**
 * What can go wrong, one class for each thing a caller may want to catch; the names are Python's.
 *
 * Every message is one sentence: what was found, what was expected, what to do. An answer that was
 * cancelled throws the reason of its signal instead, an `AbortError` unless the caller gave one.
 */

/** Root of every error this package throws on purpose. */
export class GlmRuntimeError extends Error {
  /**
   * @param {string} message
   * @param {unknown} [cause]
   */
  constructor(message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
  }
}

/** The folder is not what its manifest promises, or is no exported folder at all. */
export class FolderError extends GlmRuntimeError {}

/** The folder was written by a newer glm-export than this package understands. */
export class FormatVersionError extends FolderError {}

/** The prompt is empty, too long, or the chat template refuses it. */
export class PromptError extends GlmRuntimeError {}

/** A sampling or length option is outside its range, or is not offered here. */
export class SamplingError extends GlmRuntimeError {}

/** The model cannot go on: no memory, or logits no token can be chosen from. */
export class GenerationError extends GlmRuntimeError {}

/**
 * What an error of another package says, for the middle of a sentence.
 * @param {unknown} error
 */
export function firstLine(error) {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split("\n")[0].replace(/\.$/, "") || "no reason given";
}
