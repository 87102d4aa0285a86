"""Where the meter's steps stand in a chat template: this puts them into the parsed template, before it is compiled.

    {% for x in y %} ...           ->  {% for x in y %}{% do tick() %} ...
    {{ value }}, text              ->  {{ emit(value) }}, {{ emit('text') }}
    a == b                         ->  weigh(a) == weigh(b)
    a ~ b                          ->  join(a, b)
    [a, b], (a, b), {a: b}         ->  hold([a, b]) ...

The functions are attributes of the environment that a template cannot name. What else costs (calls, operators,
attributes, filters) passes through the environment anyway.
"""

from __future__ import annotations

from jinja2 import nodes
from jinja2.visitor import NodeTransformer


class Metering(NodeTransformer):
    """Puts the meter's steps into a parsed template."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_metered("emit", _constant(child)) for child in node.nodes]
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_metered("tick", lineno=node.lineno), lineno=node.lineno))
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _metered("weigh", node.expr)
        for operand in node.ops:
            operand.expr = _metered("weigh", operand.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _metered("join", *node.nodes)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _metered("hold", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _metered("hold", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _metered("hold", node) if node.ctx == "load" else node


def _metered(hook: str, *args: nodes.Expr, lineno: int | None = None) -> nodes.Call:
    line = lineno if lineno is not None else args[0].lineno
    return nodes.Call(nodes.EnvironmentAttribute(hook, lineno=line), list(args), [], None, None, lineno=line)


def _constant(child: nodes.Expr) -> nodes.Expr:
    return nodes.Const(child.data, lineno=child.lineno) if isinstance(child, nodes.TemplateData) else child
