"""What all tests share: no network, a private cache, the shared data, and the collector of oracles."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Before numpy or torch is loaded: with several workers on a few cores, one thread each is fastest.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The collector lies beside the tests, in no package.
sys.path.insert(0, str(Path(__file__).parent / "plugins"))
from oracles import MARK, OracleCollector, sheet_oracles

pytest_plugins = ["pytester"]

# The same examples in every run, so that a verdict does not depend on luck; HYPOTHESIS_PROFILE=explore looks further.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and the collector."""
    from handful.papers import papers

    config.addinivalue_line("markers", MARK)
    config.addinivalue_line("markers", "slow: takes more than some seconds; left out of the quick run")
    works = {p.number: tuple(part.name for part in p.working) for p in papers()}
    config.pluginmanager.register(OracleCollector(works, works, sheet_oracles(SHARED / "spec")), "handful-oracles")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """No test talks to the network; local sockets of the operating system stay, for worker processes."""
    from pytest_socket import disable_socket

    disable_socket(allow_unix_socket=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it skip where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data sets are not here")
    return folder


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's feature cache out of the tests."""
    os.environ["HANDFUL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What draws from torch's own generator draws the same whichever tests ran before."""
    import torch

    torch.manual_seed(0)
