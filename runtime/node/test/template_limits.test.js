/** Templates of strangers: no endless loop, no value that fills the memory, and honest templates as before. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Template } from "@huggingface/jinja";

import { BoundedTemplate } from "../src/bounded_template.js";
import { ChatTemplate } from "../src/chat_template.js";
import { FolderError, HostileTemplateError } from "../src/errors.js";

const DOUBLED = "{% set ns = namespace(l=[1]) %}{% for i in range(34) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
const GROWN = "{% set ns = namespace(s='aaaa') %}{% for i in range(40) %}{% set ns.s = STEP %}{% endfor %}{{ ns.s|length }}";
const ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
const LARGE = GROWN.replaceAll("40", "22").replace("STEP", "ns.s + ns.s");

const HOSTILE = {
  "lists doubled and compared": `${DOUBLED}{{ ns.l == 'a' }}`,
  "lists doubled and written": `${DOUBLED}{{ ns.l|tojson }}`,
  "a deep list": "{% set ns = namespace(l=[1]) %}{% for i in range(9000) %}{% set ns.l = [ns.l] %}{% endfor %}",
  "wide JSON": "{{ range(9000)|tojson(indent=9999) }}",
  "wide separators": "{{ range(99999)|tojson(separators=(range(3000)|join, ':')) }}",
  "a long range": "{{ range(10000000000) }}",
  "an endless loop": ENDLESS,
  "macros that call themselves twice":
    "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) }}",
  "texts that are doubled": GROWN.replace("STEP", "ns.s + ns.s"),
  "texts that are concatenated": GROWN.replace("STEP", "ns.s ~ ns.s"),
  "texts that are joined": GROWN.replace("STEP", "[ns.s, ns.s]|join"),
  "texts that are replaced": GROWN.replace("STEP", "ns.s.replace('a', ns.s)"),
  "a filter that replaces": GROWN.replace("STEP", "ns.s|replace('a', ns.s)"),
  "a wide indent": `${LARGE}{{ ('a\n' ~ ns.s)|indent(1000000000) }}`,
  "many indents": "{{ range(99999)|join('\n')|indent(9999) }}",
  "a joined text": `${LARGE}{{ ns.s|join(ns.s) }}`,
  "a text in pieces": `${LARGE}{{ ns.s.split('a') }}`,
  "a long date": `${LARGE}{{ strftime_now(ns.s) }}`,
  "a namespace in itself": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
  "namespaces in namespaces":
    "{% set ns = namespace(l=1) %}{% for i in range(40) %}{% set ns.l = namespace(a=ns.l, b=ns.l) %}{% endfor %}",
};

for (const [name, source] of Object.entries(HOSTILE)) {
  test(`${name}: refused in time`, () => {
    const started = Date.now();
    assert.throws(
      () => new ChatTemplate(source).render([{ role: "user", content: "hi" }]),
      (error) => error instanceof HostileTemplateError && /is not allowed \(.+\); do not trust/.test(error.message),
    );
    assert.ok(Date.now() - started < 60_000);
    assert.ok(process.memoryUsage().heapUsed < 1 << 30);
  });
}

test("a template of a megabyte is not parsed", () => {
  assert.throws(() => new ChatTemplate("{{ a }}".repeat(150_000)), FolderError);
});

test("honest templates give what the library gives", () => {
  const source =
    "{% set ns = namespace(n=0) %}{% macro say(a, b=2) %}<{{ a }}{{ b }}>{% endmacro %}" +
    "{% for m in messages[::-1] %}{% set text %}{{ m.content }}{% endset %}" +
    "{% set ns.n = ns.n + text.split('</t>')[-1].strip()|length %}{{ say(m.role, b='x') }}" +
    "{% if m.parts is defined and 'x' in m.parts %}{{ m.parts|join(', ') }}{{ m.parts|tojson(indent=2) }}{% endif %}" +
    "{{ m.content.replace('a', 'bc')|indent(4) }}{{ loop.index0 }}{% endfor %}{{ ns.n }}{{ strftime_now('%Y %%') }}" +
    "{% for k, v in {'a': 1, 'b': [true, none, 1.5]}.items() %}{{ k ~ v }}{% endfor %}{{ range(2, 9, 3) }}" +
    "{% filter upper %}a{% endfilter %}{{ messages|map(attribute='role')|list|unique|length }}";
  const messages = Array(200).fill({ role: "user", content: "a b\n".repeat(1000), parts: ["x", "y"] });
  assert.equal(new BoundedTemplate(source).render({ messages }), new Template(source).render({ messages }));
});

test("strip removes what Python calls white space", () => {
  const text = "\ufeff a\x1c\u3000"; // a byte order mark is no white space in Python, U+001C is some
  const source = "{{ x.strip() }}|{{ x|trim }}|{{ x.rstrip() }}|{{ (' ' ~ x).lstrip() }}|{{ ' ' .strip() }}";
  const rendered = new BoundedTemplate(source).render({ x: text });
  assert.equal(rendered, `\ufeff a|\ufeff a|\ufeff a|${text}|`);
});
