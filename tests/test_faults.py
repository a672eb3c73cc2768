"""The checks find planted faults, and a healthy subject passes them all."""

import pytest

from jaxcnn.errors import InputError
from jaxcnn.tuning import preflight
from jaxcnn.tuning.faults import FAULTS, planted
from tests.tuning_subjects import healthy

BY_NAME = {check.__name__: check for check in preflight.CHECKS}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    subject = planted(healthy(), name)
    for check in FAULTS[name].found_by:
        found = BY_NAME[check](subject)
        assert found.verdict == "fail", found
        assert found.advice


def test_a_healthy_subject_passes_all_checks() -> None:
    findings = list(preflight.preflight(healthy()))
    assert len(findings) == len(preflight.CHECKS)
    assert {one.verdict for one in findings} <= {"pass", "skip"}, [one for one in findings if one.verdict != "pass"]


def test_a_check_that_cannot_be_carried_out_fails_in_words() -> None:
    import dataclasses

    def broken(logits, targets):
        raise TypeError("unsupported operand")

    findings = list(preflight.preflight(dataclasses.replace(healthy(), loss=broken)))
    failed = [one for one in findings if one.verdict == "fail"]
    assert any("TypeError: unsupported operand" in one.figure for one in failed)


def test_an_unknown_fault_is_an_error() -> None:
    with pytest.raises(InputError, match="did you mean 'overlap'"):
        planted(healthy(), "overlapp")
