from tests.parallel.runs import *
def prec(plan, ps):
    from deepspeed.accelerator import get_accelerator
    a=get_accelerator(); a.is_fp16_supported=lambda: True
    return run_precisions(plan,ps)
def pipe_opt(plan,name):
    import dataclasses
    return train_spread(make_engine(plan[0],plan[1]|{"optim":dataclasses.replace(OPTIM,name=name)}))
