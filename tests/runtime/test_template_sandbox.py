"""Templates of strangers: no way out, no endless loop, no text that fills the memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glm_runtime.errors import FolderError, HostileTemplateError, PromptError
from glm_runtime.text.chat_template import ChatTemplate

MESSAGES = [{"role": "user", "content": "hi"}]
PACKAGE = Path(__file__).parents[2] / "runtime"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{% set f = '{0.__class__.__mro__}'.format %}{{ f(1) }}",
        "{{ ('{0.__class__.__mro__}'|attr('format'))(1) }}",
        "{{ raise_exception.__globals__['jinja2'] }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
    ],
)
def test_a_way_out_is_named(source: str) -> None:
    with pytest.raises(HostileTemplateError) as caught:
        ChatTemplate(source).render(MESSAGES)
    message = str(caught.value)
    assert "does something that is not allowed (access to attribute" in message
    assert message.endswith("or pass the whole prompt to Model.generate.") and "\n" not in message
    assert MESSAGES == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''|attr('__class__') }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '{a.__class__}'.format_map({'a': 1}) }}",
        "{{ ''.join.__self__ }}",
        "{{ strftime_now.__code__ }}{{ strftime_now.__globals__ }}",
    ],
)
def test_an_attribute_that_is_only_printed_is_empty(source: str) -> None:
    """As Jinja's sandbox has it: undefined, and refused once something is asked of it."""
    assert ChatTemplate(source).render(MESSAGES) == ""


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{% for a in b %}" * 25 + "{% endfor %}" * 25,
        "{{ " + "9" * 5000 + " }}",
        "{% if a %}" * 120 + "{% endif %}" * 120,
    ],
    ids=["brackets", "loops", "digits", "ifs"],
)
def test_what_cannot_be_compiled_is_told_in_a_sentence(source: str) -> None:
    with pytest.raises(FolderError, match="is not a valid Jinja template"):
        ChatTemplate(source)


@pytest.mark.parametrize("tag", ["include '/etc/passwd'", "import 'x' as y", "extends '../x'"])
def test_files_cannot_be_named(tag: str) -> None:
    with pytest.raises(PromptError, match="no loader for this environment"):
        ChatTemplate(f"{{% {tag} %}}").render(MESSAGES)


def grow(step: str) -> str:
    """Sixty doublings of four characters."""
    return "{% set ns = namespace(s='aaaa') %}{% for i in range(60) %}" + step + "{% endfor %}"


TWICE = "{% for i in range(99999) %}{% for j in range(99999) %}BODY{% endfor %}{% endfor %}"
LARGE = "{% set b = 'a' * 18000000 %}"
EXHAUSTING = [
    LARGE + "{% set f = '%(a)s' * 1000 %}{{ f % {'a': b} }}",
    LARGE + "{% set f = '{0}' * 1000 %}{{ f.format(b) }}",
    LARGE + "{{ ([b] * 1000)|join }}",
    LARGE + "{{ (b ~ ' ' ~ b)|wordwrap(1, true, 'w' * 9000) }}",
    LARGE + "{{ b.translate({97: 'x' * 9000}) }}",
    LARGE + "{% for i in range(99999) %}{% if 'zz' in b or b.count('zz') %}{% endif %}{% endfor %}",
    "{% set a0 = ['lol'] * 10 %}"
    + "".join(f"{{% set a{i + 1} = [a{i}] * 10 %}}" for i in range(10))
    + "{{ a10 }}{{ a10|string }}{{ a10|tojson }}",
    "{% set a0 = ['lol', 'lol'] %}"
    + "".join(f"{{% set a{i + 1} = [a{i}, a{i}] %}}" for i in range(40))
    + "{{ a40 ~ '' }}",
    "{% for a in [1] recursive %}{% if a < 9 %}{% for _ in range(999) %}"
    "{{ loop.index }}{% endfor %}{{ loop(range(99999)) }}{% endif %}{% endfor %}",
    "{% for i in range(10**12) %}x{% endfor %}",
    TWICE.replace("BODY", "x"),
    TWICE.replace("BODY", "{% set y = 1 %}"),
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(100) }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [0] * 10**10 }}",
    "{{ 9999999999 ** 9999999999 }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (9999999999, 1) }}",
    "{{ '%9999999999d'|format(1) }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 9999999999) }}",
    "{{ 'a'|center(9999999999) }}",
    "{{ 'a'|center(width=9999999999) }}",
    "{{ 'a'.ljust(9999999999) }}",
    "{{ messages|tojson(indent=9999999999) }}",
    "{{ ('\n' * 10000000)|indent(9999) }}",
    "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "{{ (range(99999)|list)|join('b' * 1000000) }}",
    "{{ ('b' * 1000000).join(range(99999)|map('string')|list) }}",
    "{{ range(99999)|map('string')|map('center', 9999)|join }}",
    "{{ 1|round(999999999, 'ceil') }}",
    "{{ (5).to_bytes(99999999999) }}",
    "{{ lipsum(99999) }}",
    grow("{% set ns.s = ns.s ~ ns.s %}"),
    grow("{% set ns.s = ns.s + ns.s %}"),
    grow("{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
    grow("{% set ns.s = [ns.s, ns.s]|join %}"),
    grow("{% set ns.s = ns.s.replace('a', ns.s) %}"),
    "{% set x %}{% for i in range(99999) %}{{ 'a' * 20000000 }}{% endfor %}{% endset %}",
    "{% set ns = namespace(l=[], s='a' * 20000000) %}"
    "{% for i in range(99999) %}{% set ns.l = ns.l + [ns.s[1:]] %}{% endfor %}",
]
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}"
DOUBLED = "{% set ns = namespace(l=[1]) %}{% for i in range(34) %}{% set ns.l = [ns.l, ns.l] %}"
DEEP = (
    "{% set ns = namespace(l=[1]) %}{% for i in range(9000) %}{% set ns.l = [ns.l] %}{% endfor %}"
)
KEPT = "{% set ns = namespace(k=[]) %}{% for i in range(999) %}{% set ns.k = [ns.k, BODY] %}"
MANY = "{% set m = ('a b ' * 4000000) %}"
# Operations for which each item was once a case of its own: now a value of any origin is bounded.
EXHAUSTING += [
    DOUBLED + "{% endfor %}{{ ns.l == ns.l[:] }}",
    DOUBLED + "{% endfor %}{{ [[0]] + ns.l < ns.l }}",
    DOUBLED.replace("[ns.l, ns.l]", "(ns.l, ns.l)") + "{% endfor %}{{ {ns.l: 1} }}",
    DOUBLED.replace("[ns.l, ns.l]", "{1: ns.l, 2: ns.l}") + "{% endfor %}{{ ns.l == ns.l.copy() }}",
    DOUBLED.replace("[ns.l, ns.l]", "dict(a=ns.l, b=ns.l)")
    + "{% endfor %}{{ ns.l == ns.l.copy() }}",
    DOUBLED.replace("[ns.l, ns.l]", "ns.l.copy() + ns.l") + "{% endfor %}{{ ns.l|sort }}",
    "{% set ns = namespace(l=namespace(x=1)) %}{% for i in range(40) %}"
    "{% set ns.l = namespace(a=ns.l, b=ns.l) %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace() %}{% set ns.l = [ns, ns] %}{{ ns.l }}",
    "{{ range(99999)|map('string')|map('list')|list|sum(start=[]) }}",
    "{{ ([range(99)|list] * 9999)|sum(start=[]) }}",
    DEEP + "{{ ns.l|tojson(indent=9999) }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(150) %}"
    "{% set ns.l = [ns.l] * 2 if i < 9 else [ns.l] %}{% endfor %}{{ ns.l|tojson(indent=9999) }}",
    "{{ ([1] * 900000)|tojson(separators=('a' * 9999, ':')) }}",
    "{{ strftime_now('%99999d' * 2000000) }}",
    "{{ strftime_now('%99999d') }}",
    "{{ strftime_now('%9999d' * 150) }}",
    "{{ ('www.a.de ' * 900000)|urlize(target='a' * 9000) }}",
    "{{ ('<!-- -->' * 2000000)|striptags }}",
    "{{ ('%9999d' * 2000000) % (range(99999)|list) }}",
    "{{ ['%9999999999d']|format(1) }}",
    "{{ ('{' + ':' * 19000000).format(1) }}",
    "{{ '%99999999999d'.encode() % 1 }}",
    MANY + ENDLESS + "{% set x = m.split() %}" + "{% endfor %}{% endfor %}",
    MANY + KEPT.replace("BODY", "m[:1500000].split()") + "{% endfor %}",
    MANY + KEPT.replace("BODY", "m.partition('b')") + "{% endfor %}",
    MANY + KEPT.replace("BODY", "m.replace(' ', '\n')[:900000].splitlines()") + "{% endfor %}",
    MANY + KEPT.replace("BODY", "m[:900000]|list") + "{% endfor %}",
    MANY + KEPT.replace("BODY", "range(99999)|batch(1, m)|list") + "{% endfor %}",
    MANY + "{{ m|list }}",
    MANY + "{{ m.rfind('b' + m[:9000000]) }}",
    MANY + "{{ ('a' * 9000000).strip('b' * 9000000 + 'a') }}",
    "{% set ns = namespace(g=[1]) %}{% for i in range(90000) %}{% set ns.g = ns.g|map('string') %}"
    "{% endfor %}x",
    "{% set ns = namespace(g=[1]) %}{% for i in range(90000) %}{% set ns.g = [1]|batch(2, ns.g) %}"
    "{% endfor %}x",
    "{{ ('x' * 90000).encode('idna') }}",
    "{{ (1).from_bytes('a'.encode() * 9000000) }}",
    "{{ ('1' * 20000000)|int(base=2) }}",
    "{{ raise_exception('x' * 20000000) }}",
    ENDLESS + "{% if ns is defined or 1 < 2 %}{% endif %}{% endfor %}{% endfor %}",
]
CHILD = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
from glm_runtime.text.chat_template import ChatTemplate
from glm_runtime.errors import PromptError
for source in json.load(sys.stdin):
    try:
        print(json.dumps(ChatTemplate(source).render([])[:9]), flush=True)
    except PromptError as error:
        print(json.dumps(str(error)), flush=True)
"""


def test_time_and_memory_have_an_end() -> None:
    """In a process of its own, limited to 2 GB and 300 s of processor time."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(EXHAUSTING),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE)},
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(EXHAUSTING)
    for source, sentence in zip(EXHAUSTING, said, strict=True):
        assert sentence.startswith("the model's chat template "), source
        assert len(sentence) < 600, source
        assert "()" not in sentence, source  # MemoryError has no words: nothing came so far


def test_what_honest_templates_do_has_room() -> None:
    """A thousand messages of four thousand characters, copied, cut and joined."""
    source = (
        "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set text %}{{ m.content }}"
        "{% endset %}{% set ns.n = ns.n + text.split('</t>')[-1].strip()|length %}"
        "{% for c in m.parts %}{{ c ~ '\n' }}{% endfor %}{{ '%05d'|format(loop.revindex) }}"
        "{{ '{:>8}'.format(m.role) }}{{ m.content.replace('a', 'bc')|indent(4) }}{% endfor %}"
        "{{ ns.n }}"
    )
    messages = [{"role": "user", "content": "a b\n" * 1000, "parts": ["x"] * 50}] * 1000
    assert ChatTemplate(source).render(messages).endswith(str(3999 * 1000))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ messages|pprint }}", "it uses the filter 'pprint'"),
        ("{{ messages|map('urlize')|list }}", "it uses the filter 'urlize'"),
        ("{{ (1.5).fromhex('0x1p0') }}", "it calls fromhex of a value of type type"),
        ("{{ ''.encode().hex() }}", "it calls hex of a value of type bytes"),
        ("{{ {}.fromkeys([1]) }}", "it calls fromkeys of a value of type type"),
        ("{{ messages|indent }}", "it applies indent to a value that is not a text"),
    ],
)
def test_what_is_not_known_is_refused(source: str, reason: str) -> None:
    """The cost of every operation is known; `indent` of a list once changed the user's list."""
    messages = [dict(message) for message in MESSAGES]
    with pytest.raises(HostileTemplateError) as caught:
        ChatTemplate(source).render(messages)
    assert reason in str(caught.value)
    assert messages == MESSAGES


def test_a_template_of_a_megabyte_is_not_compiled() -> None:
    with pytest.raises(FolderError, match="it has more than 200000 characters"):
        ChatTemplate("{{ a }}" * 150_000)


def test_nested_lists_of_a_user_are_measured_once() -> None:
    """A large tool schema is looked at in a loop; each list is added up once."""
    schema: dict[str, object] = {f"field{i}": {"type": ["string", "null"]} for i in range(2000)}
    source = "{% for m in messages %}{% if [schema, m] %}{{ m.content }}{% endif %}{% endfor %}"
    message = {"role": "user", "content": "a"}
    template = ChatTemplate("{% set schema = messages[0].schema %}" + source)
    assert template.render([{**message, "schema": schema}] * 500) == "a" * 500
