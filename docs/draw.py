"""Draw the packages and their imports into docs/architecture.md: `python -m docs.draw`.

`tests/test_architecture.py` fails where the drawing is out of date, has a circle, or has grown beyond its bounds.
"""

import ast
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
DRAWN = re.compile(r"(?<=<!-- drawing -->\n).*(?=<!-- end of drawing -->)", re.DOTALL)

FLOORS = {  # from the top; imports go down, or stay on a floor
    "commands": ("pages", "pages.ui", "core.cli"),
    "files": ("core.files",),
    "analysis and engine": ("core.analysis", "core.engine"),
    "runs": ("core.runs", "core.store"),
    "methods": ("core.methods", "core.strategies", "core.selectors", "core.label_scores", "core.plots"),
    "maths": ("core.models", "core.gradnorm", "core"),
    "data": ("data", "data.sources", "data.files", "data.dataset"),
}
TITLES = {
    "pages": "app.py, pages",
    "core.cli": "core.cli, python -m core",
    "core.gradnorm": "core.gradnorm, core.influence",
    "core": "core: scores, masks, relabel, metrics, graph, tsne",
    "data": "data: load, check",
    "data.dataset": "data: dataset, annotations, votes, errors",
}
SHARED = {"data": "data.dataset", "core.gradnorm.rules": "core.gradnorm", "core.influence": "core.gradnorm"}
# Modules that lie in `core` and `data` themselves stand for two floors, or for both ends of one
LOOSE = {
    "core.__main__": "core.cli",
    "core.methods": "core.methods",
    "core": "core",
    "data": "data",
    "data.check": "data",
}


@dataclass(frozen=True)
class Drawing:
    """Boxes, and arrows between them: who imports → what is imported → how many imports of a module."""

    boxes: frozenset[str]
    arrows: dict[tuple[str, str], int]

    def circle(self) -> list[str]:
        """The boxes of a circle of arrows, the first again at the end; empty where there is none."""
        below: dict[str, set[str]] = {box: set() for box in self.boxes}
        for importer, imported in self.arrows:
            below[importer].add(imported)
        try:
            TopologicalSorter(below).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def upward(self) -> list[tuple[str, str]]:
        """Arrows to a higher floor."""
        floor = {box: at for at, boxes in enumerate(FLOORS.values()) for box in boxes}
        return [(a, b) for a, b in sorted(self.arrows) if floor[a] > floor[b]]

    def mermaid(self) -> str:
        """The drawing as a Mermaid flowchart."""
        lines = ["```mermaid", "flowchart TB"]
        for at, (floor, boxes) in enumerate(FLOORS.items()):
            lines.append(f'    subgraph floor{at}["{floor}"]')
            lines += [f'        {_id(box)}["{TITLES.get(box, box)}"]' for box in boxes if box in self.boxes]
            lines.append("    end")
        lines += [f"    {_id(importer)} --> {_id(imported)}" for importer, imported in sorted(self.arrows)]
        lines += ["```", "", f"{len(self.arrows)} arrows between {len(self.boxes)} boxes."]
        return "\n".join(lines) + "\n"


def draw() -> Drawing:
    """Every package of the product and its imports; imports for type checkers alone are left out.

    Raises `KeyError` for a package that is on no floor of `FLOORS`.
    """
    graph = grimp.build_graph("core", "data", "pages", exclude_type_checking_imports=True, cache_dir=None)
    imports = {(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)}
    tree = ast.parse((ROOT / "app.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("core", "data", "pages"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            imports |= {("app", name if name in graph.modules else node.module) for name in names}
    packages = {module for module in graph.modules if graph.find_children(module)}
    arrows: dict[tuple[str, str], int] = {}
    for importer, imported in imports:
        arrow = _box(importer, packages), _box(imported, packages)
        if arrow[0] != arrow[1]:
            arrows[arrow] = arrows.get(arrow, 0) + 1
    return Drawing(frozenset(_box(module, packages) for module in graph.modules), arrows)


def drawn(document: str, drawing: Drawing) -> str:
    """The document with this drawing in it."""
    return DRAWN.sub(lambda _: drawing.mermaid(), document)


def _box(module: str, packages: set[str]) -> str:
    if module == "app":
        return "pages"
    if module in LOOSE:
        return LOOSE[module]
    package = module if module in packages else module.rpartition(".")[0]
    box = SHARED.get(package, package)
    if not any(box in boxes for boxes in FLOORS.values()):
        raise KeyError(f"{box} is on no floor: add it to FLOORS in docs/draw.py")
    return box


def _id(box: str) -> str:
    return box.replace(".", "_")


if __name__ == "__main__":
    DOCUMENT.write_text(drawn(DOCUMENT.read_text(encoding="utf-8"), draw()), encoding="utf-8")
