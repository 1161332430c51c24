"""A radix tree of token prefixes with their keys and values, bounded in bytes.

A node holds the tokens of one segment with copies of their keys and values. The least recently used
leaf is the first to go. It knows nothing about the graph. Letters: B buffers, H key/value heads,
n tokens of a segment, D head size.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from glm_runtime.arrays import CacheArray
from glm_runtime.graph.decoding import count_shared

# Long prefixes are chains of short segments, so that they are split and evicted in small parts.
SEGMENT_TOKENS = 256

CopyValues = Callable[[int, int], CacheArray]  # values [B, H, n, D] of tokens start ... stop - 1


@dataclass(eq=False)
class _Node:
    """One segment; a root has no tokens.

    Attributes:
        tokens: the n tokens of the segment.
        values: their keys and values [B, H, n, D]; `None` in a root.
        parent: the node before; `None` for a root.
        namespace: the name under which a root is found.
        children: the nodes that follow, by their first token.
    """

    tokens: Sequence[int] = ()
    values: CacheArray | None = None
    parent: "_Node | None" = None
    namespace: str = ""
    children: "dict[int, _Node]" = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return 0 if self.values is None else self.values.nbytes


class PrefixTree:
    """Keys and values of token sequences, shared where sequences begin alike.

    Attributes:
        size_bytes: bytes of all keys and values.
    """

    def __init__(self, token_bytes: int, limit_bytes: int) -> None:
        """Make an empty tree.

        Args:
            token_bytes: bytes of the keys and values of one token.
            limit_bytes: the largest number of bytes that the tree may hold.
        """
        self._token_bytes = token_bytes
        self._limit_bytes = limit_bytes
        self._roots: dict[str, _Node] = {}
        # All nodes but the roots, the least recently used first. A node is always used after its
        # children, so that the first one is a leaf.
        self._by_use: OrderedDict[_Node, None] = OrderedDict()
        self.size_bytes = 0

    def resize(self, limit_bytes: int) -> None:
        """Change the limit, and remove what no longer fits."""
        self._limit_bytes = limit_bytes
        self._make_room(0, ())

    def measure(self, tokens: Sequence[int], namespace: str = "") -> int:
        """Return the length of the longest prefix of `tokens` in the tree, and mark it as used."""
        path, inside = self._descend(tokens, namespace)
        self._touch(path)
        whole = sum(len(node.tokens) for node in path[:-1])
        return whole + inside

    def read(self, tokens: Sequence[int], namespace: str = "") -> Iterator[CacheArray]:
        """Yield the values [B, H, n, D] of the longest prefix, part after part, without copying.

        The tree must not change meanwhile.
        """
        path, inside = self._descend(tokens, namespace)
        for node in path:
            count = inside if node is path[-1] else len(node.tokens)
            if node.values is not None:
                yield node.values[:, :, :count]

    def insert(self, tokens: Sequence[int], copy: CopyValues, namespace: str = "") -> None:
        """Add a sequence; as much of it as fits is kept.

        Args:
            tokens: the sequence, from its first token.
            copy: returns copies of the keys and values of some of the tokens; it is called for
                those that the tree does not hold.
            namespace: what else the values depend on; equal tokens in two namespaces share nothing.
        """
        path, inside = self._descend(tokens, namespace)
        self._touch(path)
        done = sum(len(node.tokens) for node in path[:-1]) + inside
        if path and inside < len(path[-1].tokens) and done < len(tokens):
            path[-1] = self._split(path[-1], inside)
        path = path or [_Node(namespace=namespace)]
        while done < len(tokens):
            stop = min(done - done % SEGMENT_TOKENS + SEGMENT_TOKENS, len(tokens))
            if not self._make_room((stop - done) * self._token_bytes, path):
                break
            segment = list(tokens[done:stop])
            path.append(self._add(_Node(segment, copy(done, stop), path[-1])))
            done = stop
        self._touch(path)
        if path[0].children:
            self._roots[namespace] = path[0]

    def _descend(self, tokens: Sequence[int], namespace: str) -> tuple[list[_Node], int]:
        """Return the path of the longest prefix, and how many tokens of its last node match."""
        node = self._roots.get(namespace)
        if node is None:
            return [], 0
        path, inside, done = [node], 0, 0
        while inside == len(node.tokens) and done < len(tokens):
            child = node.children.get(tokens[done])
            if child is None:
                break
            node = child
            inside = count_shared(node.tokens, tokens[done : done + len(node.tokens)])
            done += inside
            path.append(node)
        return path, inside

    def _touch(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):
            if node.parent is not None:
                self._by_use.move_to_end(node)

    def _add(self, node: _Node) -> _Node:
        assert node.parent is not None
        node.parent.children[node.tokens[0]] = node
        self._by_use[node] = None
        self.size_bytes += node.size_bytes
        return node

    def _split(self, node: _Node, length: int) -> _Node:
        """Divide a segment after `length` tokens; return the new node of the first part."""
        assert node.parent is not None and node.values is not None
        upper = _Node(node.tokens[:length], node.values[:, :, :length].copy(), node.parent)
        self.size_bytes -= node.size_bytes
        # Copied, because a view would keep the memory of both parts.
        node.tokens, node.values = node.tokens[length:], node.values[:, :, length:].copy()
        self.size_bytes += node.size_bytes
        node.parent = self._add(upper)
        upper.children[node.tokens[0]] = node
        return upper

    def _make_room(self, needed_bytes: int, kept: Sequence[_Node]) -> bool:
        """Remove unused leaves until `needed_bytes` fit; return False if they never do."""
        while self.size_bytes + needed_bytes > self._limit_bytes:
            oldest = next(iter(self._by_use), None)
            if oldest is None or oldest in kept:
                return False
            self._remove(oldest)
        return True

    def _remove(self, leaf: _Node) -> None:
        assert leaf.parent is not None and not leaf.children
        del self._by_use[leaf]
        del leaf.parent.children[leaf.tokens[0]]
        self.size_bytes -= leaf.size_bytes
        if leaf.parent.parent is None and not leaf.parent.children:
            self._roots.pop(leaf.parent.namespace, None)
