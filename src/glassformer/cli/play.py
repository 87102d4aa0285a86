"""`glassformer play`: a Decision Transformer acts in an environment for a return that is asked for."""

from __future__ import annotations

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json


def play(
    model: options.Run,
    env: str = typer.Option(
        None, "--env", metavar="ID", help="An environment of gymnasium; default: the one that it learned from."
    ),
    target_return: float = typer.Option(
        None, "--return", metavar="R", help="The return to ask for; default: the best one of its training episodes."
    ),
    episodes: int = typer.Option(1, metavar="N", min=1, help="How many episodes to play."),
    seed: int = typer.Option(0, metavar="NUMBER", min=0, help="Same seed, same episodes."),
    temperature: float = typer.Option(
        None, metavar="T", help="Of actions to choose from: 0 (default) takes the most likely one, 1 draws one."
    ),
    html: str = typer.Option(None, metavar="FILE", help="Draw the first episode as a self-contained page."),
    save: str = typer.Option(None, metavar="FILE", help="Write the episodes as trajectories (.npz)."),
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Play episodes with a Decision Transformer.

    Prints the return that was asked for and the one that it got; of one episode also a picture.

    Examples:

    glassformer play runs/cartpole-1 --return 200

    glassformer play runs/cartpole-1 --env CartPole-v1 --return 500 --episodes 100

    glassformer play runs/key-to-door-1 --return 1 --html episode.html
    """
    from glassformer.cli.options import open_for
    from glassformer.figures import save as save_figures
    from glassformer.figures import to_text
    from glassformer.figures.json import plain
    from glassformer.generation.play import play as play_episodes
    from glassformer.generation.play import trajectories_of
    from glassformer.tasks.returns import episode_figures, played_words

    bundle = open_for("play", model, device)
    played = play_episodes(
        bundle.model,
        bundle.processor,
        env,
        target_return=target_return,
        episodes=episodes,
        seed=seed,
        temperature=temperature,
        render=True,
    )
    if save is not None:
        trajectories_of(played, env or bundle.processor.environment).save(save)
    if html is not None:
        save_figures(episode_figures(played[0]), html)
        typer.echo(f"{html}: open it in a browser", err=True)
    if as_json:
        print_json([{**plain(episode), "got": episode.got} for episode in played])
        return
    if episodes == 1 and html is None:
        typer.echo(to_text(episode_figures(played[0])))
    typer.echo(played_words(played))
