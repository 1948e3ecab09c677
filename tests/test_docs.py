"""What the documentation shows runs, and finds what it says."""

import re
import runpy

import numpy as np


def test_the_example_in_python_runs_from_top_to_bottom(capsys):
    cells = runpy.run_module("docs.python", run_name="__main__")
    said = capsys.readouterr().out
    assert len(set(cells["next_ones"])) == 5
    assert not np.isin(cells["next_ones"], cells["rows"]).any()
    (loose,) = re.findall(r"is ([\d.]+)% of its bound", said)
    assert 0 < float(loose) < 50
    (share,) = re.findall(r"(\d+)% are wrong", said)
    assert int(share) > 40  # twice the base rate, by far
    random, phi, oracle = (float(area) for area in re.findall(r"AUC ([\d.]+)", said))
    assert random < phi < oracle
