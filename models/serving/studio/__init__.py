"""The studio: a page on which people draw strokes, make videos and see whether the strokes were followed.

page/     template, style and script of the stroke editor
motion    strokes from files and from videos
clips     curated clips of the pipeline
drawing   what the editor sends and takes
form      the fields of the page's form
wish      what the sampler is asked for by them
estimate  the picture warped by the strokes, without a model
sampler   videos by a model in this process or by a scoring server, with progress and cancel
measured  the error of a video, stroke by stroke
history   the folder of finished videos
recipe    one result as a command line, Python and curl
app       the page
start     the command `image-conductor studio`
quick_import  gradio in less time
late          what computes, imported after the page has opened
"""
