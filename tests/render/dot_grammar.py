"""The part of the dot language that topology uses (graphviz.org/doc/info/lang.html), read strictly."""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""\s+|//[^\n]*\n                       # between tokens
    |(?P<id>[A-Za-z_][A-Za-z_0-9]*|-?(?:\.\d+|\d+(?:\.\d*)?)|"(?:[^"\\]|\\.)*")
    |(?P<mark>--|[{}\[\];,=])""",
    re.VERBOSE,
)


@dataclass
class Graph:
    nodes: set[str] = field(default_factory=set)
    edges: set[frozenset[str]] = field(default_factory=set)


def parse(text: str) -> Graph:
    """Nodes (those with attributes of their own) and edges; AssertionError where it is no dot."""
    return _Reader(_tokens(text)).graph()


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        assert match, f"not dot: {text[position : position + 40]!r}"
        tokens += [token for token in match.group("id", "mark") if token]
        position = match.end()
    return tokens


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.found = Graph()

    def graph(self) -> Graph:
        self.expect("graph")
        self.name()
        self.expect("{")
        while not self.at("}"):
            self.statement()
            if self.at(";"):
                self.expect(";")
        self.expect("}")
        assert not self.tokens, f"after the graph: {self.tokens[:5]}"
        assert {name for edge in self.found.edges for name in edge} <= self.found.nodes
        return self.found

    def statement(self) -> None:
        name = self.name()
        if self.at("="):
            self.expect("=")
            self.name()
        elif self.at("--"):
            self.expect("--")
            self.found.edges.add(frozenset((name, self.name())))
            self.attributes()
        else:
            if name not in ("node", "edge"):
                self.found.nodes.add(name)
            self.attributes()

    def attributes(self) -> None:
        if not self.at("["):
            return
        self.expect("[")
        while not self.at("]"):
            self.name()
            self.expect("=")
            self.name()
            if self.at(","):
                self.expect(",")
        self.expect("]")

    def at(self, mark: str) -> bool:
        return bool(self.tokens) and self.tokens[0] == mark

    def expect(self, mark: str) -> None:
        assert self.at(mark), f"{mark!r} is missing before {self.tokens[:5]}"
        self.tokens.pop(0)

    def name(self) -> str:
        token = self.tokens.pop(0)
        assert re.match(r'[\w".-]', token), f"{token!r} is no name"
        return re.sub(r"\\(.)", r"\1", token[1:-1]) if token.startswith('"') else token
