"""The live line of an export."""

import time
from dataclasses import dataclass, field

from pipelines.progress import Screen
from pipelines.units import duration

_PERIOD_S = 15.0
_TERMINAL_PERIOD_S = 0.5


@dataclass
class Progress:
    """Clips done of total, rate, time left."""

    screen: Screen
    name: str
    clips: int
    done: int = 0
    _started: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)

    def one_more(self) -> None:
        """Counts a clip, and shows the line when it is time."""
        self.done += 1
        if self.done == self.clips:
            self.screen.close()
            return
        now = time.monotonic()
        if now - self._shown < (_TERMINAL_PERIOD_S if self.screen.terminal else _PERIOD_S):
            return
        self._shown = now
        rate = self.done / (now - self._started)
        left = duration((self.clips - self.done) / rate)
        self.screen.live(f"{self.name}: {self.done} of {self.clips} clips, {rate:.1f} clips/s, {left} left")
