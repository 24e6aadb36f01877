"""One file per question; each times Ousel beside a floor or a peer in the same run."""
