"""Pages of manuals as paragraphs: mark-up and programs go, words and their order stay."""

from __future__ import annotations

from glassformer.data.manual_blocks import Block, html_blocks, man_blocks

HTML = """<!DOCTYPE html><html><head><title>Lists &mdash; Help</title><script>if (a<b) { p(); }</script></head><body>
<nav><p>Contents</p></nav>
<!-- <p>an old paragraph</p> -->
<h1 id="hd_1">3.1. <a href="x"/>Lists</h1>
<p id='par_2'>Press <span class="key"><span hidden="true" id="MACx_1"><span>Comm</span>and</span><span hidden="true"
 id="defaultx_1">Ctrl</span></span>+<b>Tab</b>,<br>then&nbsp;type 1 &lt; 2.</p>
<pre>print "<p>no prose</p>"</pre>
<table><tr><td><p class="x">in a cell</p></td><td>bare cell</td><td></td></tr></table>
<script src="a.js"/><p>last
  words</p><footer><p>debug</p></footer></body></html>"""


def test_html_becomes_its_paragraphs_with_ids_or_tags_as_keys():
    assert html_blocks(HTML) == [
        Block("hd_1", "Lists"),
        Block("par_2", "Press Ctrl+Tab, then type 1 < 2."),
        Block("p", "in a cell"),
        Block("td", "bare cell"),
        Block("p", "last words"),
    ]


def test_mallard_is_read_by_the_same_rules():
    page = """<page xmlns="http://projectmallard.org/1.0/"><info><desc>Choose a style.</desc><credit><name>A</name>
    <p>somebody</p></credit></info><title>Look</title><steps><item><p>Click <gui>Light</gui>.</p></item></steps>
    <screen>ls</screen></page>"""
    assert html_blocks(page) == [Block("desc", "Choose a style."), Block("title", "Look"), Block("p", "Click Light.")]


MAN = r"""'\" t
.\" a comment
.TH accept 2 2022-12-04 "Linux"
.SH NAME
accept, accept4 \- accept a connection
.SH "RETURN VALUE"
The
.BR accept ()
call \fIreturns\fP
.I sockfd
(see
.BR socket (2)).\" a remark
.PP
Not\ a\(aqthing: \(lqquoted\(rq \[u00E9]t\('e \e0, 2\(->3.
.nf
int x;
.fi
.SS Errors
.TP 16
.BR EAGAIN " or " EWOULDBLOCK
No
.B "process is"
left.
.IP \(bu 2
An item.
.TS
l l.
a	b
.TE
.RS
Indented\
, joined.
.RE
"""


def test_a_man_page_becomes_headings_terms_and_paragraphs():
    assert man_blocks(MAN) == [
        Block("SH", "NAME"),
        Block("P", "accept, accept4 - accept a connection"),
        Block("SH", "RETURN VALUE"),
        Block("P", "The accept() call returns sockfd (see socket(2))."),
        Block("P", "Not a'thing: “quoted” ét \\0, 2→3."),
        Block("SS", "Errors"),
        Block("TP", "EAGAIN or EWOULDBLOCK"),
        Block("P", "No process is left."),
        Block("TP", "•"),
        Block("P", "An item."),
        Block("P", "Indented, joined."),
    ]


def test_pages_that_only_name_another_or_use_other_macros_hold_nothing():
    assert man_blocks(".so man2/accept.2\n") == []
    assert man_blocks(".Dd May 1\n.Dt LS 1\n.Sh NAME\nls\n") == []
