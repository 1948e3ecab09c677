"""Masks of a run over its images: as tiles and panels, with their legend; what an image's pixels say on its card."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.analysis import layers
from core.analysis.layers import Codes, Layers
from core.relabel import Ints
from core.runs import jobs, saliency
from data.files import overlay, preview
from data.files.preview import Pixels
from data.masks import BACKGROUND, VOID, colours
from pages.ui import assets
from pages.ui.frame import Here, errors

OPACITIES = tuple(round(step / 10, 1) for step in range(1, 11))
SIDE, SMALL = 150, 108  # pixels of a panel; of one on a card, which has three in a row
SHARP = 2  # pixels of a picture for each of the screen's
TOP = 99.5  # percentile of a map of gradients that its brightest colour stands for


@dataclass(frozen=True)
class Look:
    """What of the images is drawn: one of the answer's `layers`, over the image with an opacity where it is mixed with it."""

    layer: str = "image"
    opacity: float = 0.6


PLAIN = Look()
MIXED = ("label", "prediction", "reference", "disagreement")


@st.cache_resource(max_entries=8, show_spinner=False)
def of_cycle(_here: Here, key: tuple[str, int, int]) -> Layers:
    """The masks of the cycle we stand at."""
    return layers.of_cycle(_here.run, _here.dataset, _here.cycle)


def offered(here: Here) -> dict[str, str]:
    """The layers of the run by name; without the reference where none is known. Empty where labels are of whole images."""
    found = here.run.answer.layers
    if not found or of_cycle(here, here.key).reference is not None:
        return found
    return {name: title for name, title in found.items() if name != "reference"}


def drawn(here: Here, rows: tuple[int, ...], look: Look, side: int) -> Pixels:
    """Some rows of the pool as a look has them, uint8 [n, h, w, C], no side above `side`.

    All but the image alone are as large as the model sees it: masks lie over these pixels.
    """
    images = preview.small(here.dataset.images, rows, side)
    if look.layer == "image":
        return images
    height, width = images.shape[1:3]
    found, at = of_cycle(here, here.key), np.array(rows)
    if look.layer == "entropy":
        return overlay.heat(overlay.resized(np.asarray(found.entropies[at]), height, width))
    if look.layer == "disagreement":
        one, other = (overlay.resized(mask, height, width) for mask in (found.said(at), found.target(at)))
        return overlay.differing(images, one, other, look.opacity)
    masks: dict[str, Callable[[Ints], Codes]] = {
        "label": found.label,
        "reference": found.truth,
        "prediction": found.said,
    }
    codes = overlay.resized(masks[look.layer](at), height, width)
    return overlay.overlay(images, codes, found.class_names, look.opacity)


def legend(here: Here, look: Look, key: str) -> None:
    """What the colours of a look mean; nothing where there are none."""
    if look.layer == "image":
        return
    if look.layer not in ("entropy", "disagreement"):
        return classes(here.dataset.class_names, key)
    entries, scale = list[dict[str, str]](), None
    if look.layer == "entropy":
        scale = {"colours": [_css(one) for one in overlay.STOPS], "low": "sure: 0 nats", "high": _most(here)}
    else:
        against = of_cycle(here, here.key).against
        entries = [{"name": f"the prediction is not the {against}", "colour": _css(overlay.WRONG)}]
    _LEGEND(key=key, data={"entries": entries, "scale": scale})


def classes(names: Sequence[str], key: str) -> None:
    """What the colours of masks mean; a background has none."""
    entries = [{"name": name, "colour": _css(one)} for name, one in zip(names, colours(len(names)), strict=True)]
    _LEGEND(key=key, data={"entries": [one for one in entries if one["name"] != BACKGROUND], "scale": None})


_LEGEND = assets.component("legend")


def _most(here: Here) -> str:
    return f"unsure: ln {len(here.dataset.class_names)} = {np.log(len(here.dataset.class_names)):.2f} nats"


def _css(colour: tuple[int, ...]) -> str:
    return f"rgb({', '.join(map(str, colour))})"


def panels(here: Here, row: int, look: Look, side: int = SIDE) -> None:
    """An image beside all of its layers, with the legend of its classes."""
    names, found = offered(here), of_cycle(here, here.key)
    if side == SMALL:  # of a card, which has the image above
        names = {name: title for name, title in names.items() if name != "image"}
    absent = [
        name for name, codes in (("label", found.label), ("reference", found.truth)) if _blank(codes(np.array([row])))
    ]
    shown = {name: title for name, title in names.items() if name not in absent}
    opacity = look.opacity
    pictures = [drawn(here, (row,), Look(name, opacity), SHARP * side)[0] for name in shown]
    st.image([preview.png(one, SHARP * side) for one in pictures], caption=list(shown.values()), width=side)
    legend(here, Look("prediction", opacity), f"legend-{here.run.id}-{here.cycle}-{row}-{side}")
    said = []
    if "label" in absent and "label" in names:
        said.append("Nobody has given it a mask yet.")
    unseen = ", which the strategy does not see" if found.against == "reference" else ""
    said.append(f"Disagreement: where the prediction is not the {found.against}{unseen}.")
    said.append(f"Entropy: dark is sure, bright is unsure (ln {len(found.class_names)} nats).")
    st.caption(" ".join(said))


def beside(first: Here, second: Here, row: int) -> None:
    """The masks that two cycles predict for one image, and where they differ."""
    look, size, at = Look("prediction"), SHARP * SMALL, np.array([row])
    image = drawn(first, (row,), PLAIN, size)
    height, width = image.shape[1:3]
    one, other = (overlay.resized(of_cycle(side, side.key).said(at), height, width) for side in (first, second))
    pictures = {
        "Image": image,
        "First": drawn(first, (row,), look, size),
        "Second": drawn(second, (row,), look, size),
        "Where they differ": overlay.differing(image, one, other, 1.0),
    }
    if of_cycle(first, first.key).reference is not None:
        pictures["Reference"] = drawn(first, (row,), Look("reference"), size)
    st.code(first.dataset.ids[row], language=None)
    st.image([preview.png(one[0], size) for one in pictures.values()], caption=list(pictures), width=SMALL)
    legend(first, look, f"legend-diff-{first.run.id}")


def _blank(codes: Any) -> bool:
    return bool((codes == VOID).all())


def class_table(here: Here, row: int) -> pd.DataFrame:
    """Each class of an image: its colour as a picture, name, shares of the pixels, IoU."""
    found = of_cycle(here, here.key)
    table = found.classes(row)
    all_of_them = swatches(len(found.class_names))
    return table.assign(colour=[all_of_them[code] for code in table.index])[["colour", *table.columns]]


def swatches(n: int) -> list[str]:
    """The colours of n classes as small pictures for a table."""
    return [preview.url(np.full((12, 12, 3), one, dtype=np.uint8)) for one in colours(n)]


def card(here: Here, row: pd.Series) -> None:
    """What is said of the pixels of an image: panels, IoU by class, and where the entropy would change."""
    position = int(row.name)
    panels(here, position, PLAIN, SMALL)
    against = of_cycle(here, here.key).against
    st.dataframe(
        class_table(here, position),
        hide_index=True,
        placeholder="—",
        column_config={
            "colour": st.column_config.ImageColumn("", width=28),
            "class": "Class",
            "target": st.column_config.NumberColumn(against.capitalize(), format="percent", help="Share of the pixels"),
            "predicted": st.column_config.NumberColumn("Predicted", format="percent", help="Share of the pixels"),
            "iou": st.column_config.NumberColumn("IoU", format="%.3f", help=f"Prediction and {against}, in this image"),
        },
    )
    _gradient(here, position, row["sample_id"])


def _gradient(here: Here, position: int, sample_id: str) -> None:
    """Which pixels the entropy depends on: kept with the cycle, or computed when it is asked for."""
    with st.expander("Gradient of the entropy by pixel"), errors():
        found = saliency.read(here.run, here.dataset, here.cycle, position)
        place, key = st.empty(), f"pixels-{here.run.id}-{here.cycle}-{position}"
        if found is None and place.button("Compute (some seconds)", key=key):
            with place, st.spinner("One backward pass…"):
                jobs.explain_pixels(here.run, here.cycle, sample_id)
            place.empty()
            found = saliency.read(here.run, here.dataset, here.cycle, position)
        if found is None:
            st.caption("How much the mean entropy of the predicted mask changes with each pixel of the image.")
            return
        top = float(np.percentile(found, TOP)) or 1.0
        values = np.rint(np.clip(found / top, 0, 1) * 255).astype(np.uint8)
        pictures = [drawn(here, (position,), PLAIN, SHARP * SIDE)[0], overlay.heat(values)]
        st.image([preview.png(one, SHARP * SIDE) for one in pictures], caption=["Image", "Gradient"], width=SIDE)
        st.caption(
            f"‖∂ mean H / ∂x‖ of each pixel of the normalised image: bright is {top:.2g} nats and more. The mean entropy of the "
            "prediction depends most on bright pixels."
        )
