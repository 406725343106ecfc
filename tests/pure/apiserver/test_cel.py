"""CEL: what expressions are worth, what does not compile and in which words, and that none goes on for ever."""

# ruff: noqa: E501 (an expression is one line)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.apiserver.cel import types
from podwire.apiserver.cel.check import Rejected, compile_text
from podwire.apiserver.cel.fields import escaped, unescaped
from podwire.apiserver.cel.values import CostExceeded, Fault
from podwire.apiserver.extension.rules import schema_type

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "x": {"type": "number"},
        "s": {"type": "string"},
        "b": {"type": "boolean"},
        "l": {"type": "array", "items": {"type": "integer"}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "o": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        "when": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"},
        "raw": {"type": "string", "format": "byte"},
        "mixed": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "in": {"type": "string"},
        "a-b": {"type": "string"},
        "gone": {"type": "string"},
    },
}
SELF: dict[str, Any] = {
    "n": 3, "x": 2, "s": "hello", "b": True, "l": [3, 1, 2], "m": {"k": "v"}, "o": [{"name": "a", "port": 80}, {"name": "b", "port": 443}],
    "when": "2026-01-02T03:04:05Z", "wait": "90s", "raw": "aGk=", "mixed": "80%", "free": {"deep": [{"er": 1}]}, "in": "word", "a-b": "dash",
}  # fmt: skip
VARIABLES = {"self": schema_type(SCHEMA, root=True)}


def worth(text: str, self: Any = SELF) -> Any:
    return compile_text(text, VARIABLES).evaluate({"self": self})[0]


@pytest.mark.parametrize(
    "text",
    r"""
    1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 3 == -1 && 7.5 / 2.0 == 3.75
    dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1) < 1.5 && !(dyn(true) == dyn(1))
    self.n > 2 && self.x == 2.0 && self.x / 4.0 == 0.5
    self.s.size() == 5 && size(self.l) == 3 && self.s.startsWith('he') && self.s.endsWith("lo") && self.s.contains('ell')
    self.s.matches('^h.*o$') && matches(self.s, 'l+') && !self.s.matches('^x')
    self.l.all(i, i > 0) && self.l.exists(i, i == 2) && self.l.exists_one(i, i == 3) && !self.l.exists_one(i, i > 1)
    self.l.map(i, i * 2) == [6, 2, 4] && self.l.filter(i, i > 1) == [3, 2] && self.l.map(i, i > 1, i + 1) == [4, 3]
    self.l.isSorted() == false && self.l.sum() == 6 && self.l.min() == 1 && self.l.max() == 3 && self.l.indexOf(2) == 2
    self.l.sort() == [1, 2, 3] && self.l.slice(0, 2) == [3, 1] && [1, [2, [3]]].flatten() == [1, 2, [3]] && [1, 1, 2].distinct() == [1, 2]
    self.l.all(i, v, v > 0 && i < 3) && self.m.exists(k, v, k == 'k' && v == 'v') && self.m.transformList(k, v, k + v) == ['kv']
    self.m.transformMap(k, v, v + '!') == {'k': 'v!'} && self.m.all(k, k == 'k') && 'k' in self.m && !('z' in self.m)
    self.o.all(one, self.o.exists_one(two, one.name == two.name)) && self.o.map(one, one.port) == [80, 443]
    has(self.s) && !has(self.gone) && has(self.m.k) && !has(self.m.z) && has(self.free.deep)
    self.?gone.orValue('none') == 'none' && self.?s.hasValue() && !self.?gone.hasValue() && self.m[?'z'].orValue('y') == 'y'
    self.?s.optMap(v, v + '!').orValue('') == 'hello!' && optional.of(1).value() == 1 && [?self.?gone, 's'] == ['s']
    self.when < timestamp('2027-01-01T00:00:00Z') && self.when.getFullYear() == 2026 && self.when.getDayOfWeek() == 5
    self.wait == duration('1m30s') && self.when + self.wait == timestamp('2026-01-02T03:05:35Z') && self.wait.getSeconds() == 90
    self.raw == b'hi' && string(self.raw) == 'hi' && base64.encode(b'hi') == 'aGk=' && base64.decode('aGk=') == b'hi'
    type(self.mixed) == string && (self.mixed == 80 || self.mixed.endsWith('%')) && self.free.deep[0].er == 1
    self.__in__ == 'word' && self.a__dash__b == 'dash'
    cel.bind(v, self.n + 1, v * v) == 16
    self.gone == 'x' || true
    (self.b ? 'yes' : 'no') == 'yes' && (1 < 2 ? 1 : 2) == 1
    'a,b,c'.split(',') == ['a', 'b', 'c'] && ['a', 'b'].join('-') == 'a-b' && 'abc'.substring(1, 2) == 'b' && 'aba'.replace('a', 'c', 1) == 'cba'
    'ABC'.lowerAscii() == 'abc' && ' x '.trim() == 'x' && 'abc'.charAt(1) == 'b' && 'abca'.lastIndexOf('a') == 3 && 'ab'.reverse() == 'ba'
    '%s has %d of %.2f and %x'.format(['a', 3, 1.5, 255]) == 'a has 3 of 1.50 and ff' && '%s'.format([[1, 'a']]) == '[1, a]'
    'abc 123 def 456'.find('[0-9]+') == '123' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']
    quantity('1Gi').isGreaterThan(quantity('100Mi')) && quantity('1k') == quantity('1000') && quantity('50m').add(quantity('1')).compareTo(quantity('1050m')) == 0
    isQuantity('1.3Mi') && !isQuantity('1,3') && quantity('2k').asInteger() == 2000 && quantity('1').sub(1).sign() == 0
    url('https://example.com:80/p?q=1&q=2').getHost() == 'example.com:80' && url('https://[::1]:80/').getHostname() == '::1' && isURL('/p') && !isURL('p')
    url('https://a/p?q=1&q=2').getQuery() == {'q': ['1', '2']} && url('https://a:8/p').getPort() == '8' && url('https://a/p').getScheme() == 'https'
    isIP('::1') && !isIP('127.0.0.256') && ip('127.0.0.1').family() == 4 && ip('127.0.0.1').isLoopback() && ip('10.0.0.1').isGlobalUnicast()
    ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1') && isCIDR('10.0.0.0/8') && cidr('10.0.0.0/8').containsIP('10.1.2.3')
    cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8
    !format.dns1123Label().validate('my-label').hasValue() && format.named('uuid').value().validate('x').hasValue()
    semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-alpha').isLessThan(semver('1.0.0')) && isSemver('1.2.3') && !isSemver('1.2') && semver('v1.2', true).minor() == 2
    sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2]) && math.greatest(1, 3, 2) == 3
    int('4') == 4 && double(1) == 1.0 && string(1.0) == '1' && bool('true') && uint(3) == 3u && string(duration('90s')) == '90s'
    "\u00e9" == "é" && r'\d' == '\\d' && '''a'b''' == "a'b" && 0x1F == 31 && 1e3 == 1000.0
    """.strip().split("\n"),
)  # fmt: skip
def test_true(text: str) -> None:
    assert worth(text.strip()) is True


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("self.nope", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^"),
        ("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^"),
        ("self.s.nope()", "ERROR: <input>:1:12: undeclared reference to 'nope' (in container '')\n | self.s.nope()\n | ...........^"),
        (
            "self.n + 'a'",
            "ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(int, string)'\n | self.n + 'a'\n | .......^",
        ),
        (
            "self.n.size()",
            "ERROR: <input>:1:12: found no matching overload for 'size' applied to 'int.()'\n | self.n.size()\n | ...........^",
        ),
        (
            "self.s == 1",
            "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(string, int)'\n | self.s == 1\n | .......^",
        ),
        ("self.o.all(p, p.nope)", "ERROR: <input>:1:16: undefined field 'nope'\n | self.o.all(p, p.nope)\n | ...............^"),
        (
            "self.n && true",
            "ERROR: <input>:1:8: found no matching overload for '_&&_' applied to '(int, bool)'\n | self.n && true\n | .......^",
        ),
    ],
)
def test_what_does_not_compile(text: str, wanted: str) -> None:
    with pytest.raises(Rejected) as refused:
        compile_text(text, VARIABLES)
    assert str(refused.value) == wanted


@pytest.mark.parametrize(
    "text", ["self.n ==", "(1", "[1, 2", "{1: }", "a.", "1 ? 2", "'open", "for", "self.in", "has(self)", "1 2", "#", ""]
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(Rejected, match="ERROR: <input>:1:"):
        compile_text(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("self.gone == 'x'", "no such key: gone"),
        ("self.l[7] == 1", "index out of bounds: 7"),
        ("self.n / 0 == 1", "division by zero"),
        ("self.n % 0 == 1", "modulus by zero"),
        ("9223372036854775807 + self.n > 0", "integer overflow"),
        ("self.mixed + 1 == 81", "no such overload"),
        ("self.free.deep.size() >= 'a'.size() && self.free.deep > 1", "no such overload"),
        ("quantity('x') == quantity('y')", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("optional.none().value() == 1", "optional.none() dereference"),
    ],
)
def test_what_goes_wrong(text: str, wanted: str) -> None:
    with pytest.raises(Fault) as fault:
        worth(text)
    assert str(fault.value) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))",
        "self.l.map(a, self.l).all(some, some.all(b, !self.l.exists(c, b + c < 0)))",
        "self.l.map(a, self.l).map(b, [b, b]).map(c, [c, c]) == self.l.map(a, self.l).map(b, [b, b]).map(c, [c, c])",
        "'%s'.format([self.l.map(a, self.l)]) == ''",
        "self.l.map(a, self.s).join('').size() == 0",
        "self.s.replace('x', self.s).size() == 0",
        "self.l.distinct().size() == 0",
        "sets.contains(self.l, self.l)",
        "lists.range(1000000).size() == 0",
        "self.l.map(a, self.s + self.s + self.s + self.s).map(a, a + a + a + a).all(a, self.l.all(b, a.matches('(x+x+)+y')))",
    ],
)
def test_no_expression_goes_on_for_ever(text: str) -> None:
    with pytest.raises(CostExceeded):
        worth(text, {"l": list(range(2000)), "s": "x" * 10_000})


def test_small_expressions_make_no_large_values() -> None:
    """Each step doubles what the one before made, or holds it twice."""
    for first, step, last in (
        ("self.s", "v{0} + v{0}", "v{0}.size() > 0"),
        ("[1]", "v{0} + v{0}", "v{0}.size() > 0"),
        ("[1]", "[v{0}, v{0}]", "v{0} == dyn([v{0}]) || '%s'.format([v{0}]) == ''"),
    ):
        text = last.format(40)
        for number in range(40, 0, -1):
            text = f"cel.bind(v{number}, {step.format(number - 1)}, {text})"
        with pytest.raises(CostExceeded):
            worth(f"cel.bind(v0, {first}, {text})", {"s": "x" * 1000})
    with pytest.raises(Fault, match="precision"):
        worth("'%.999999999f'.format([1.5]) == ''")


def test_nesting_is_limited() -> None:
    for text in ("(" * 400 + "1" + ")" * 400, "!" * 400 + "true", "[" * 400 + "]" * 400):
        with pytest.raises(Rejected):
            compile_text(text, VARIABLES)


def test_what_is_named_is_known() -> None:
    program = compile_text("self.n == 1 && oldSelf.n == 2", {**VARIABLES, "oldSelf": VARIABLES["self"]}, types.BOOL)
    assert program.uses == {"self", "oldSelf"}
    with pytest.raises(Rejected, match="must evaluate to bool"):
        compile_text("self.n", VARIABLES, types.BOOL)


@given(st.text("abs.[](){}\"'?:!&|=<>+-*/%,0123456789u \\`r", max_size=40))
def test_any_text_compiles_or_is_rejected(text: str) -> None:
    try:
        program = compile_text(text, {"a": types.DYN, "s": types.STRING})
    except Rejected:
        return
    try:
        program.evaluate({"a": {"b": [1, "x", None]}, "s": "abc"}, 1000)
    except Fault:
        return


@given(st.from_regex(r"[A-Za-z_./-][A-Za-z0-9_./-]{0,12}", fullmatch=True))
def test_names_of_fields_come_back(name: str) -> None:
    said = escaped(name)
    assert not said or unescaped(said) == name
