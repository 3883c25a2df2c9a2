"""Maps for balance and network together: few nodes that tokens visit, at a makespan that stays within a limit."""
