"""The tools on a model of another task, from its training on."""

import re
from pathlib import Path

from tool_runs import fail, succeed


def check_both_forms(folder: Path, source: Path, config: Path, deploy_config: Path, metrics: str, count: int) -> None:
    """Convert a checkpoint by the tool, and see that both forms have the same metrics.

    Args:
        folder: Folder in which the tools run.
        source: The checkpoint, in train form.
        config: Its config.
        deploy_config: That of the other form.
        metrics: Pattern of a metric's name.
        count: Number of metrics.
    """
    destination = folder / 'deploy.pth'
    for options in ([], ['--data', 'data/shapes/images/val']):
        output = succeed('reparameterize_model', config, source, destination, *options, cwd=folder)
        found = re.search(r'largest difference (\S+) of the largest output on [28] (image|noise)', output)
        assert found is not None, output
        assert float(found[1]) < 1e-5
    scores = []
    for each, checkpoint in ((config, source), (deploy_config, destination)):
        output = succeed('test', each, checkpoint, '--work-dir', 'test', cwd=folder)
        scores.append(re.findall(rf'^({metrics}): (\S+)$', output, re.MULTILINE))
    assert len(scores[0]) == count
    assert scores[0] == scores[1]
    assert 'is in deploy form' in fail('test', config, destination, cwd=folder)
