/**
 * The error classes of this package. They have the names of the Python runtime's classes.
 *
 * Every message says what was found, what was expected, and what to do. A cancelled answer throws the
 * reason of its signal instead; by default that is an `AbortError`.
 */

/** Base class of all errors of this package. */
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

/** The folder does not match its manifest, or is not an exported folder. */
export class FolderError extends GlmRuntimeError {}

/** A newer version of glm-export wrote the folder in a format that this package cannot read. */
export class FormatVersionError extends FolderError {}

/** The prompt is empty or too long, or the chat template fails on the messages. */
export class PromptError extends GlmRuntimeError {}

/** The chat template takes too much time or memory. */
export class HostileTemplateError extends PromptError {}

/** A generation option is outside its range, or is unknown in JavaScript. */
export class SamplingError extends GlmRuntimeError {}

/** The model cannot continue: memory is exhausted, or the logits are not finite. */
export class GenerationError extends GlmRuntimeError {}

/**
 * The first line of another package's error message, to be quoted inside a sentence.
 * @param {unknown} error
 */
export function firstLine(error) {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split("\n")[0].slice(0, 300).replace(/\.$/, "") || "no reason given";
}
