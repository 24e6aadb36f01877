"""What Ousel is compared with: simple scorers that are hard to beat, tuned on the file that they are compared on.

Their defaults were chosen on the newest tenth of the training sessions of a week of clicks in a shop, and are where
`tuning` begins.
"""

from __future__ import annotations

from trainer.evaluation.peers.frequency import PersonalFrequency
from trainer.evaluation.peers.item_knn import ItemKNN
from trainer.evaluation.peers.popularity import DecayedPopularity
from trainer.evaluation.peers.session_knn import SessionKNN
from trainer.evaluation.peers.stan import STAN

__all__ = ["STAN", "DecayedPopularity", "ItemKNN", "PersonalFrequency", "SessionKNN"]
