"""Makes the simulated node that the settings describe and puts it in the place of the driver."""

import threading
from pathlib import Path
from typing import Final

from powerhall_agent.settings.sampler_settings import SimulateSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.faults import play, read_script
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.recording import play_recording, read_recording
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import release_orphan

__all__ = ["start_simulation"]

_MEMORY_SHARE: Final = 0.7


def start_simulation(settings: SimulateSettings, node: str) -> StateFile:
    """Open or make the state file, play script or recording in the background, and let pynvml answer from it.

    A bad script, recording, model or state file raises Rejected before anything is installed.
    """
    path = Path(settings.state_file) if settings.state_file else None
    steps = read_script(Path(settings.script)) if settings.script else []
    recording = read_recording(Path(settings.recording)) if settings.recording else None
    if path is not None and path.exists():
        state = StateFile.open(path)
        release_orphan(state)
    elif recording is not None:
        state = StateFile.blank(path, len(recording.gpus), recording.driver)
    else:
        state = StateFile.create(path, gpus=settings.gpus, model_name=settings.model, node=node, seed=settings.seed)
        for gpu in range(state.gpus):
            memory_bytes = state.doubles[state.base(gpu) + at.C_MEM_TOTAL]
            state.set_load(gpu, settings.load, _MEMORY_SHARE * memory_bytes if settings.load else 0.0)
    install([state])
    never = threading.Event()
    if steps:
        threading.Thread(target=play, args=(state, steps, never), name="fault-script", daemon=True).start()
    if recording is not None:
        threading.Thread(target=play_recording, args=(state, recording, never), name="replay", daemon=True).start()
    return state
