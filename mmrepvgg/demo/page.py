"""The local page. Streamlit runs this file for each visitor, again after each of his actions."""

import streamlit as st

from mmrepvgg.demo.cards import read_style
from mmrepvgg.demo.serving import get_show

MAX_IMAGES = 24

show = get_show()
st.set_page_config(page_title=show.title, layout='wide')
st.html(f'<style>{read_style()}</style>')
st.html(show.heading)
uploads = st.file_uploader('Images', accept_multiple_files=True)
if len(uploads) > MAX_IMAGES:
    st.warning(f'{len(uploads)} images were given. The first {MAX_IMAGES} are shown; remove some to see others.')
    uploads = uploads[:MAX_IMAGES]

# what was computed before an action of the visitor is kept
known = st.session_state.get('cards', {})
cards = {}
for upload in uploads:
    place = st.empty()
    if upload.file_id not in known:
        with place, st.spinner('The network looks at it', show_time=False):
            known[upload.file_id] = show.look(upload.name, upload.getvalue())
    cards[upload.file_id] = known[upload.file_id]
    place.html(cards[upload.file_id])
st.session_state['cards'] = cards
