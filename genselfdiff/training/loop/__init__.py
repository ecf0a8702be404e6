"""The one loop of both stages: a step, all of them, what watches over them, what they leave."""
