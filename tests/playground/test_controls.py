"""The sampling controls and the buttons of a job."""

import threading
from dataclasses import replace

import pytest

from seqlm.config import DRAWING, SampleConfig
from seqlm.playground.controls import CONTROLS, Job, SamplingControls

MOVES = {
    "temperature": 0.3, "top_k": 7, "top_p": 0.5, "guidance": 4.0, "num_beams": 2, "seed": 5,
}  # fmt: skip


def test_the_controls_begin_with_the_settings_of_readme():
    assert SamplingControls().config() == SampleConfig(**DRAWING)


@pytest.mark.parametrize("strategy", CONTROLS["used"])
@pytest.mark.parametrize("name", MOVES)
def test_each_slider_changes_its_setting_and_unused_ones_are_disabled(name, strategy):
    controls = SamplingControls()
    controls.strategy.value = strategy
    before = controls.config()
    controls.sliders[name].value = MOVES[name]
    assert controls.config() == replace(before, **{name: MOVES[name]})
    assert controls.sliders[name].disabled == (name not in CONTROLS["used"][strategy])


def test_the_first_seed_follows_the_last():
    controls = SamplingControls()
    controls.sliders["seed"].value = 999
    controls.next_seed()
    assert controls.config().seed == 0


def test_a_running_job_is_not_started_again_and_its_buttons_come_back():
    gate = threading.Event()
    job = Job("Work", lambda: gate.wait(60))
    job.start_button.click()
    thread = job.thread
    assert job.start_button.disabled and not job.stop_button.disabled
    job.start()
    assert job.thread is thread
    gate.set()
    thread.join()
    assert (job.start_button.disabled, job.stop_button.disabled) == (False, True)


def test_stop_is_reported_to_the_work_and_forgotten_at_the_next_start():
    stopped = []
    job = Job("Work", lambda: stopped.append(job.stopping.wait(0 if stopped else 60)))
    job.start()
    job.stop_button.click()
    job.thread.join()
    job.start()
    job.thread.join()
    assert stopped == [True, False] and job.status.text == "stopping"


def test_a_stop_that_comes_after_the_end_changes_nothing():
    job = Job("Work", lambda: setattr(job.status, "text", "done"))
    job.start()
    job.thread.join()
    job.stop_button.click()
    assert job.status.text == "done" and not job.stopping.is_set()
