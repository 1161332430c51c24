/**
 * A Jinja template whose rendering can neither hang nor exhaust the memory.
 *
 * @huggingface/jinja interprets templates itself, so that a template cannot run JavaScript, but limits
 * nothing. This interpreter passes every value that it makes to `template_limits.js`.
 */

import { Environment, Interpreter, Template } from "@huggingface/jinja";

import {
  Steps,
  TemplateLimitError,
  boundedRange,
  checkFilter,
  checkMethod,
  requireDateFormat,
  requireValue,
} from "./template_limits.js";
import { strip, stripBack, stripFront } from "./white_space.js";

// Released templates have 20,000.
const MAX_SOURCE_CHARACTERS = 200_000;
const EVALUATED = "Evaluated"; // a node that stands for a value
const DATE = new Template("{{ strftime_now(pattern) }}");

/** @typedef {import("./template_limits.js").Value} Value */

// The methods that are overridden are private in the library's declarations.
const OpenInterpreter = /** @type {any} */ (Interpreter);

/** A parsed template that is rendered within limits. */
export class BoundedTemplate {
  #program;

  /**
   * @param {string} source
   * @throws {Error} the template is not valid Jinja, or far longer than any chat template.
   */
  constructor(source) {
    if (source.length > MAX_SOURCE_CHARACTERS) {
      throw new TemplateLimitError(`it has more than ${MAX_SOURCE_CHARACTERS} characters`);
    }
    this.#program = new Template(source).parsed;
  }

  /**
   * @param {Record<string, unknown>} variables
   * @returns {string}
   * @throws {TemplateLimitError} it takes too much time or memory.
   * @throws {Error} the template fails on the variables.
   */
  render(variables) {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) environment.set(name, value);
    return new BoundedInterpreter(environment).run(this.#program).value;
  }
}

const GLOBALS = {
  false: false,
  true: true,
  none: null,
  False: false,
  True: true,
  None: null,
  range: boundedRange,
  /** @param {unknown} message */
  raise_exception(message) {
    throw new Error(String(message));
  },
  /** @param {unknown} pattern */
  strftime_now(pattern) {
    requireDateFormat(pattern);
    return DATE.render({ pattern });
  },
};

/** Methods that remove what Python calls white space. @type {Record<string, (text: string) => string>} */
const STRIPPED = { strip, lstrip: stripFront, rstrip: stripBack };

/**
 * @param {Value} like  a text, whose class the library does not export
 * @param {string} text
 * @returns {Value}
 */
function makeText(like, text) {
  return new /** @type {any} */ (like.constructor)(text);
}

class BoundedInterpreter extends OpenInterpreter {
  #steps = new Steps();
  /** The check of the filter whose arguments are evaluated next. @type {((given: any) => void) | undefined} */
  #check;

  /** @param {Environment} environment */
  constructor(environment) {
    super(environment);
  }

  /**
   * @param {any} node
   * @param {Environment} environment
   * @returns {any}
   */
  evaluate(node, environment) {
    if (node?.type === EVALUATED) return node.value;
    this.#steps.take();
    const value = super.evaluate(node, environment);
    if (value?.value !== undefined) this.#steps.measure(value);
    return value;
  }

  /**
   * @param {any[]} nodes
   * @param {Environment} environment
   */
  evaluateArguments(nodes, environment) {
    const check = this.#check;
    this.#check = undefined;
    const given = super.evaluateArguments(nodes, environment);
    for (const value of [...given[0], ...given[1].values()]) requireValue(value);
    check?.(given);
    return given;
  }

  /**
   * @param {Value} operand
   * @param {any} filter
   * @param {Environment} environment
   */
  applyFilter(operand, filter, environment) {
    requireValue(operand);
    const isCall = filter.type === "CallExpression";
    const name = isCall ? filter.callee.value : filter.value;
    if (isCall) this.#check = (given) => checkFilter(this.#steps, name, operand, given);
    else checkFilter(this.#steps, name, operand, [[], new Map()]);
    const isTrim = name === "trim" && operand.type === "StringValue" && !isCall;
    const value = isTrim ? makeText(operand, strip(operand.value)) : super.applyFilter(operand, filter, environment);
    this.#check = undefined;
    return value;
  }

  /**
   * @param {any} node
   * @param {Environment} environment
   */
  evaluateMemberExpression(node, environment) {
    const object = this.evaluate(node.object, environment);
    const evaluated = { type: node.type, object: { type: EVALUATED, value: object } };
    const member = super.evaluateMemberExpression(
      { ...evaluated, property: node.property, computed: node.computed },
      environment,
    );
    requireValue(member);
    if (member.type !== "FunctionValue" || object.type !== "StringValue") return member;
    return this.#watch(object, node.property.value, member);
  }

  /**
   * @param {any} node
   * @param {Environment} environment
   */
  evaluateSet(node, environment) {
    if (node.assignee.type !== "MemberExpression" || !node.value) return super.evaluateSet(node, environment);
    const value = this.evaluate(node.value, environment);
    requireValue(value);
    return super.evaluateSet({ ...node, value: { type: EVALUATED, value } }, environment);
  }

  /**
   * A method of a text that is checked before it runs.
   * @param {Value} text
   * @param {string} name
   * @param {Value} method
   */
  #watch(text, name, method) {
    const Method = /** @type {any} */ (method.constructor);
    return new Method((/** @type {Value[]} */ given, /** @type {Environment} */ scope) => {
      checkMethod(text.value, name, given);
      const stripped = given.length ? undefined : STRIPPED[name];
      return stripped ? makeText(text, stripped(text.value)) : method.value(given, scope);
    });
  }
}
