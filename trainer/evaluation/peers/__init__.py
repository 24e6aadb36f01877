"""What Ousel is compared with: simple scorers that are hard to beat, each with its tuned settings as defaults.

The settings of the neighborhoods were chosen on the newest tenth of the training sessions of a week of clicks in a
shop, never on a test split. They are a start elsewhere; a fair comparison on other data tunes both sides.
"""

from __future__ import annotations

from trainer.data.log import Scorer
from trainer.evaluation.peers.frequency import PersonalFrequency
from trainer.evaluation.peers.item_knn import ItemKNN
from trainer.evaluation.peers.popularity import DecayedPopularity
from trainer.evaluation.peers.session_knn import SessionKNN
from trainer.evaluation.peers.stan import STAN

__all__ = ["STAN", "DecayedPopularity", "ItemKNN", "PersonalFrequency", "SessionKNN", "peers"]


def peers() -> list[Scorer]:
    """One of each, not fitted, from the plainest to the strongest on sessions."""
    return [DecayedPopularity(), PersonalFrequency(), ItemKNN(), STAN(), SessionKNN()]
