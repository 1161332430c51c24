/**
 * Renders the Markdown of a model. Nothing that a model writes is trusted.
 *
 * HTML is shown as text; `marked` is told so. DOMPurify then allows only the elements below, and links to
 * http, https and mail addresses. The page's Content-Security-Policy is the third barrier.
 */

import DOMPurify from "dompurify";
import { Marked } from "marked";

import { make, makeCopyButton } from "./elements.js";

const TAGS =
  "a blockquote br code del em h3 hr li ol p pre strong table tbody td th thead tr ul".split(" ");
const ATTRIBUTES = ["align", "data-depth", "data-language", "href", "start", "title"];
const LINKS = /^(?:https?|mailto):/i;

const marked = new Marked({
  gfm: true,
  breaks: true, // lines of poems
  renderer: {
    html: (token) => ("block" in token && token.block ? `<p>${escape(token.text.trim()).replaceAll("\n", "<br>")}</p>` : escape(token.text)),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    // An image would tell its server that it is seen.
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    code: ({ text, lang }) => `<pre data-language="${escape(lang?.split(/\s/)[0] ?? "")}"><code>${escape(text)}\n</code></pre>`,
    // The page's outline has one level below the title of an answer.
    heading({ tokens, depth }) {
      return `<h3 data-depth="${depth}">${this.parser.parseInline(tokens)}</h3>`;
    },
  },
});

/** Shows Markdown that grows. A block that did not change keeps its elements, and with them the user's selection. */
export class MarkdownView {
  /** @type {{ source: string, nodes: Node[] }[]} */ #blocks = [];

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
  }

  /** @param {string} text  the whole text so far */
  show(text) {
    const blocks = readBlocks(text);
    let same = 0;
    while (same < this.#blocks.length && this.#blocks[same].source === blocks[same]?.source) same++;
    for (const { nodes } of this.#blocks.splice(same)) for (const node of nodes) /** @type {ChildNode} */ (node).remove();
    for (const { source, write } of blocks.slice(same)) {
      const nodes = [...write().childNodes];
      this.element.append(...nodes);
      this.#blocks.push({ source, nodes });
    }
  }
}

/**
 * @param {string} text
 * @returns {{ source: string, write: () => DocumentFragment }[]}
 */
function readBlocks(text) {
  try {
    const tokens = marked.lexer(text);
    const links = Object.keys(tokens.links).length; // a definition changes blocks before it
    return tokens.map((token) => ({ source: `${links} ${token.raw}`, write: () => purify(marked.parser([token]), token.raw) }));
  } catch {
    return [{ source: text, write: () => asPlainText(text) }]; // for example thousands of nested quotes
  }
}

/**
 * @param {string} html
 * @param {string} source
 */
function purify(html, source) {
  const fragment = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOWED_URI_REGEXP: LINKS,
    ADD_URI_SAFE_ATTR: ATTRIBUTES.filter((name) => name !== "href"), // otherwise their values must be links, too
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  if (!fragment.textContent?.trim() && source.trim() && !fragment.querySelector("hr")) return asPlainText(source);
  fragment.querySelectorAll("p, li, h3, td, th").forEach((element) => element.setAttribute("dir", "auto"));
  fragment.querySelectorAll("a").forEach(openElsewhere);
  fragment.querySelectorAll("pre").forEach(frameCode);
  fragment.querySelectorAll("table").forEach(frameTable);
  return fragment;
}

/** @param {string} text */
function asPlainText(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(make("p", { className: "plain", text }));
  return fragment;
}

/** @param {HTMLAnchorElement} link */
function openElsewhere(link) {
  link.target = "_blank";
  link.rel = "noopener noreferrer";
}

/** @param {HTMLPreElement} block */
function frameCode(block) {
  const code = block.textContent ?? "";
  const language = block.dataset.language || "code";
  const frame = make("div", { className: "code" });
  block.replaceWith(frame);
  const head = make("div", { className: "code-head", parts: [make("span", { text: language }), makeCopyButton("Copy this code", () => code)] });
  frame.append(head, makeScrollable(block, `Code, ${language}`));
}

/** @param {HTMLTableElement} table */
function frameTable(table) {
  const frame = make("div", { className: "table" });
  table.replaceWith(frame);
  frame.append(table);
  makeScrollable(frame, "Table");
}

/**
 * Let the keyboard scroll an element.
 * @param {HTMLElement} element
 * @param {string} label
 */
function makeScrollable(element, label) {
  element.tabIndex = 0;
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
  return element;
}

/** @param {string} text */
function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
