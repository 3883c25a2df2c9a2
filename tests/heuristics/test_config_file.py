from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from eplb_gap.heuristics import METHODS, rebalance
from eplb_gap.heuristics.config import Effort, FastConfig, PipelineConfig, Stage
from eplb_gap.heuristics.config_file import MAX_BYTES, check, read, write
from eplb_gap.heuristics.eplb import rebalance_experts
from eplb_gap.heuristics.planner import fast
from eplb_gap.heuristics.programs.recommendations import RECOMMENDATIONS
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem import Deployment, InputError

CONFIGS = [
    FastConfig(),
    FastConfig("split", 4e-05),
    FastConfig("counts", 0.0),
    *SEED_PROGRAMS.values(),
    *(recommendation.config for recommendation in RECOMMENDATIONS.values()),
    PipelineConfig(replicas=Stage("epsilon_lpt", "candidates", 8, candidates=3, epsilon=0.5), dtype="float64", fix_ups=2),
]
DEPLOYMENT = Deployment(12, 16, 4, num_nodes=2, num_groups=4)
LOADS = np.random.default_rng(11).integers(1, 900, size=(3, 12))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_what_is_written_is_read_back(config, tmp_path):
    path = tmp_path / "config.toml"
    write(path, config, "chosen on\nwindows 0 to 7")
    assert path.read_text().startswith("# chosen on\n# windows 0 to 7\n[")
    assert read(path) == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"the tables are none; exactly one of \[fast\] and \[pipeline\]"),
        ("[fast]\n[pipeline]", r"the tables are \[fast\], \[pipeline\]; exactly one"),
        ("[slow]", r"the tables are \[slow\]; exactly one"),
        ("fast = 3", "fast is 3; a table"),
        ("[fast", "no TOML"),
        ("[fast]\neffort = 'fast'\neffort = 'lpt'", "no TOML"),
        ("[fast]\nefort = 'fast'", "fast.efort is not a key; the keys are effort, tolerance"),
        ("[fast]\neffort = 'hard'", "fast.effort is 'hard'; one of lpt, fast, split, counts"),
        ("[fast]\neffort = 1", "fast.effort is 1; a string"),
        ("[fast]\ntolerance = 'low'", "fast.tolerance is 'low'; a number"),
        ("[fast]\ntolerance = true", "fast.tolerance is True; a number"),
        ("[fast]\ntolerance = -1e-3", "fast.tolerance is -0.001; a finite number of at least 0"),
        ("[fast]\ntolerance = nan", "fast.tolerance is nan; a finite"),
        ("[fast]\ntolerance = inf", "fast.tolerance is inf; a finite"),
        ("[fast]\ntolerance = 0x" + "f" * 5000, "fast.tolerance is an integer of 20000 bits"),
        ("[fast]\ntolerance = 1" + "0" * 5000, "no TOML"),
        ("fast = 0x" + "f" * 5000, "fast is a huge integer; a table"),
        ("fast = " + "[" * 9000, "no TOML"),
        ("[pipeline]\nreplication = 'adam'", "pipeline.replication is 'adam'; one of adams,"),
        ("[pipeline]\ndtype = 'float16'", "pipeline.dtype is 'float16'; one of float32, float64"),
        ("[pipeline]\nfix_ups = 1.5", "pipeline.fix_ups is 1.5; an integer"),
        ("[pipeline]\nfix_ups = -1", "pipeline.fix_ups is -1; a finite number of at least 0"),
        ("[pipeline]\ngroups = 'lpt'", "pipeline.groups is 'lpt'; a table"),
        ("[pipeline.groups]\npacker = 'lp'", "pipeline.groups.packer is 'lp'; one of lpt,"),
        ("[pipeline.groups]\npack = 'lpt'", "pipeline.groups.pack is not a key"),
        ("[pipeline.groups]\nswap_rule = 'best'\nswap_steps = 1", "pipeline.groups.swap_rule is 'best'; one of"),
        ("[pipeline.groups]\nswap_rule = 'nearest'", "swap_rule is 'nearest' with swap_steps = 0; both or none"),
        ("[pipeline.groups]\nswap_steps = 2", "swap_rule is None with swap_steps = 2; both or none"),
        ("[pipeline.replicas]\nrank_by_item = 1", "pipeline.replicas.rank_by_item is 1; true or false"),
        ("[pipeline.replicas]\ncandidates = 0", "pipeline.replicas.candidates is 0; a finite number of at least 1"),
        ("[pipeline.replicas]\ncandidates = 3", "candidates is 3; it is for swap_rule = 'candidates' only"),
        ("[pipeline.replicas]\nepsilon = 0.1", "epsilon is 0.1; it is for packer = 'epsilon_lpt' only"),
        ("[pipeline.replicas]\npacker = 'penalty_lpt'\npenalty = -1", "pipeline.replicas.penalty is -1.0"),
        ("#" * (MAX_BYTES + 1), "longer than 65536 bytes"),
    ],
)
def test_a_corrupt_file_is_one_clear_error(text, said, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as raised:
        rebalance(LOADS, DEPLOYMENT, config=path)
    assert "config.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_a_binary_and_no_file_are_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no TOML"):
        read(tmp_path / "binary.toml")


@pytest.mark.parametrize("bad", [FastConfig("hard"), FastConfig("fast", "low"), PipelineConfig(groups=Stage("lp"))])  # type: ignore[arg-type]
def test_a_bad_object_is_refused_as_a_bad_file_is(bad):
    with pytest.raises(InputError, match="is needed"):
        check(bad)
    with pytest.raises(InputError, match="is needed"):
        rebalance(LOADS, DEPLOYMENT, config=bad)


def test_rebalance_and_the_drop_in_run_what_the_file_says(tmp_path):
    for name, config in (("fast-split", FastConfig("split")), ("eplb_snake_pipeline", SEED_PROGRAMS["eplb_snake_pipeline"])):
        path = tmp_path / f"{name}.toml"
        write(path, config)
        expected = rebalance(LOADS, DEPLOYMENT, name).phy2log
        for given in (path, str(path), config):
            assert (rebalance(LOADS, DEPLOYMENT, config=given).phy2log == expected).all()
            assert (rebalance_experts(torch.tensor(LOADS), 16, 4, 2, 4, config=given)[0].numpy() == expected).all()


def test_only_one_of_method_and_config_can_say_what_to_run():
    with pytest.raises(InputError, match="method is 'fast-lpt' and config is given too"):
        rebalance(LOADS, DEPLOYMENT, "fast-lpt", FastConfig())
    with pytest.raises(InputError, match="config is a dict; a path"):
        rebalance(LOADS, DEPLOYMENT, config={"effort": "fast"})
    with pytest.raises(InputError, match="config is given too"):
        rebalance_experts(torch.tensor(LOADS), 16, 4, 2, 4, method="fast-lpt", config=FastConfig())


def test_the_planner_knows_the_efforts_and_the_default_is_a_method():
    assert get_args(Effort) == get_args(fast.Effort)
    assert (rebalance(LOADS, DEPLOYMENT, config=FastConfig()).phy2log == METHODS["fast"](LOADS, DEPLOYMENT).phy2log).all()
