"""How many bits a small transformer stores, for facts asked in one hop and in two (Johnston & Belrose, arXiv 2502.03490)."""
