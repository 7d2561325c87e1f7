# Ten steps of BIM for evaluation: the smallest step that reaches 0.04. The iterate of lowest accuracy is kept.
attack = dict(type='BIM', threat=dict(type='Linf', radius=0.04), steps=10, step_size=0.004, keep='lowest_accuracy')
