"""`python -m stages NAME --option path ...` runs one stage; dvc.yaml holds the full command of each."""

from stages.core.running import command

if __name__ == "__main__":
    command.run()
