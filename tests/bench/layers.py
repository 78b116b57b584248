"""Images of one layer and of a hundred: `ctr run --rm … true`, all layers converted, by runc and by a clone.

In turns, so that what is between them is what ninety-nine layers take, and nothing else.
"""

import time
from typing import Final

from harness.images import BUSYBOX, LAYER_COUNT, LAYERS
from tests.bench import turns
from tests.bench.place import Place
from tests.bench.results import Results
from tests.bench.variants import Variant

_DEADLINE_S: Final = 300.0
IMAGES: Final = {1: BUSYBOX, LAYER_COUNT: LAYERS}
MANY: Final = LAYER_COUNT


def measure(place: Place, variants: list[Variant], runs: int, results: Results) -> None:
    """Milliseconds, by how many layers there are."""
    chosen = {v.name: v for v in variants if not v.is_vm or (v.start, v.memory) == ("clone", "private")}
    place.containerd.import_image(LAYERS)
    cases = {f"{name}, {count} layers": (name, count) for name in chosen for count in IMAGES}

    def run_ms(case: str, _number: int) -> float:
        name, count = cases[case]
        with place.configured(chosen[name]):
            begin = time.perf_counter()
            place.box(chosen[name]).run("true", image=IMAGES[count], deadline_s=_DEADLINE_S).checked()
            return round((time.perf_counter() - begin) * 1000, 1)

    for case, found in turns.measure([*cases], runs, "layers", run_ms).items():
        name, count = cases[case]
        results.layers_ms.setdefault(name, {})[count] = found
