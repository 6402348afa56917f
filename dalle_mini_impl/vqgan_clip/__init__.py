"""VQGAN+CLIP: latents of an image tokenizer optimized along the gradient of a score.

optimize: the optimization itself · objective: what is maximized · held_out_score and result: which
latents are best, and what is returned · cutouts: random crops that the score sees · prompts: the
score of a CLIP · code_space: the latents of an image tokenizer · code_prior: likelier codes
proposed by a transformer · film and score_plot: what shows the progress.
"""
