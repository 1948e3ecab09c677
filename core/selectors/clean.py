"""Plain training on the reference labels: it knows what it should find.

Bernhardt et al. 2022, Fig. 3, call it the model upper bound. It bounds no selector with another embedding.
"""

from core.described import PURPLE
from core.selectors import Selector, vanilla

SELECTOR = Selector(
    name="clean",
    title="Trained on the reference labels, to compare with",
    answers=("class", "mask"),
    reference="Bernhardt et al. 2022, Fig. 3",
    build=vanilla.build,
    fit=vanilla.fit,
    plain=True,
    labels="reference",
    colour=PURPLE,
    place=5,
)
