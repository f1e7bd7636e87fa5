"""What every long-lived process of ours does alike, operator and node agent: how it logs, how it keeps its memory small."""
