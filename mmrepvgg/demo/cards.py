"""The cards of the local page as HTML, one an image."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ..printable import make_printable
from .answers import REPEATS, WARM_UP, Answer
from .forms import Form

_FOLDER = Path(__file__).parent
_TEMPLATES = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def render_heading(title: str, forms: Sequence[Form]) -> str:
    """What stands above the cards."""
    return _render('heading.html', title, forms=forms, repeats=REPEATS, warm_up=WARM_UP)


def render_answers(title: str, answers: Sequence[Answer]) -> str:
    """The card of an image."""
    shown = [dict(vars(answer), picture=_encode(answer.view)) for answer in answers]
    compared = 'logits' if all(answer.form.gives_logits for answer in answers) else 'probabilities'
    return _render('cards.html', title, answers=shown, compared=compared)


def render_error(title: str, error: str) -> str:
    """The card of an image without an answer, with the reason in one line."""
    return _render('cards.html', title, error=make_printable(error))


def read_style() -> str:
    """The style sheet of all cards."""
    return (_FOLDER / 'cards.css').read_text()


def _render(template: str, title: str, **values: object) -> str:
    return _TEMPLATES.get_template(template).render(title=make_printable(title), **values)


def _encode(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return f'data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'
